"""Which number format and which compiler a run uses, decided once and said aloud."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.copies import BFLOAT16, FLOAT32


def resolve_precision(choice: str) -> str:
    """`auto` is mixed_bfloat16 where the processor computes in it (an accelerator, or a CPU with
    AVX512_BF16 or AMX), else float32."""
    if choice != "auto":
        return choice
    return "mixed_bfloat16" if tf.config.list_physical_devices("GPU") or _cpu_has_bfloat16() else "float32"


def of_graph(choice: str) -> str:
    """The number format of a network that is only served, float32 or bfloat16; `auto` as for `resolve_precision`."""
    return FLOAT32 if choice == FLOAT32 or resolve_precision(choice) == FLOAT32 else BFLOAT16


def resolve_jit(choice: str) -> bool:
    """`auto` compiles with XLA where there is a GPU; on a CPU the plain graph was measured faster."""
    if choice == "auto":
        return bool(tf.config.list_physical_devices("GPU"))
    return choice == "on"


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Networks built inside use the policy; the one before is restored after."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _cpu_has_bfloat16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return any("avx512_bf16" in line or "amx_bf16" in line for line in file if line.startswith("flags"))
    except FileNotFoundError:  # not Linux: the safe format
        return False
