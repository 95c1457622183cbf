"""`python -m mvtec_tf` is the command `mvtec-tf`."""

import sys

from mvtec_tf.bin.main import main

if __name__ == "__main__":
    sys.exit(main())
