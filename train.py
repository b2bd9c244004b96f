"""`vit_jax train`, from a clone: python train.py --config=configs/digits.py"""

import sys

from vit_jax.commands.train import run_and_exit

if __name__ == '__main__':
    run_and_exit(sys.argv[1:], 'train.py')
