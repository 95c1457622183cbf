"""Several things at a time, in their order."""

import threading

import pytest

from mvtec_tf.side_by_side import in_order


def test_results_keep_the_order_of_the_items_whichever_is_ready_first():
    second = threading.Event()

    def function(item):
        # The first one waits for the second, so they must run at a time.
        if item == 0:
            assert second.wait(60)
        if item == 1:
            second.set()
        return item

    assert list(in_order(function, range(5), at_once=2)) == [0, 1, 2, 3, 4]


def test_no_more_is_read_than_is_wanted():
    read = []

    def items():
        for item in range(100):
            read.append(item)
            yield item

    results = in_order(str, items(), at_once=2)
    assert next(results) == "0"
    assert len(read) == 3
    results.close()
    assert len(read) == 3


def test_an_error_comes_in_the_place_of_its_item():
    results = in_order(lambda item: 1 // item, [1, 0, 1], at_once=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
