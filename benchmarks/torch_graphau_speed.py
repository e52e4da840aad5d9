# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of a comparison of GraphAU's speed: the twin, timed on request.

    python torch_graphau_speed.py opengraph_resnet50_stage2 --frames 8 --threads 2

Answers requests (answers.py) on standard input, such as `{"name": "frames", "windows": 5,
"seconds": 1}`: seconds per call. Weights and pictures are drawn (torch_graphau_drawn.py), so that
another side has the same without a file; `check` gives their scores, `about` the machine.
"""

import argparse
import functools

import answers
import torch
import torch_graphau
import torch_graphau_drawn as drawn
import torch_speed

BASE_SEED = 1


def model(configuration: str) -> torch_graphau.GraphAU:
    """A released model with drawn weights, for evaluation."""
    model = torch_graphau.build(configuration)
    drawn.fill(model, BASE_SEED)
    return model.eval()


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configuration", help="for example megraph_bp4d_resnet50_stage2")
    parser.add_argument("--frames", type=int, default=8, help="in one batch")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--channels_last", action="store_true", help="of pictures and maps")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile")
    return parser.parse_args()


def main() -> None:
    """Answers requests."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    form = torch.channels_last if arguments.channels_last else torch.contiguous_format
    network = model(arguments.configuration).to(torch_speed.DEVICE, memory_format=form)
    pictures = torch.from_numpy(drawn.pictures(arguments.frames, arguments.seed))
    pictures = pictures.to(torch_speed.DEVICE, memory_format=form)

    def scores(pictures: torch.Tensor) -> torch.Tensor:
        return network(pictures)["scores"]

    if arguments.compiled:
        scores = torch.compile(scores, dynamic=False)
    frames = torch.inference_mode()(functools.partial(scores, pictures))
    answers.serve(
        {"frames": frames},
        torch_speed.wait,
        {
            "check": lambda: {"scores": frames().tolist()},
            "about": lambda: torch_speed.about() | {"threads": torch.get_num_threads()},
        },
    )


if __name__ == "__main__":
    main()
