"""`vit_jax train`, from a clone: python train.py --config=configs/digits.py"""

from vit_jax.__main__ import run_and_exit

if __name__ == '__main__':
    run_and_exit('train.py', 'train')
