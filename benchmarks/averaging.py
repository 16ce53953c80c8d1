"""What averaged weights cost: training steps with and without the update of the average, in turn, in one process.

    python benchmarks/averaging.py --model random:smollm2-135m --data synthetic --repeats 20

A step is forward and backward pass, optimizer and, where asked, the average. The ratio is the median of the pairs'
ratios, with a 95 % interval by resampling the pairs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import Results, add_options, machine, without_places, work_of
from prepared import batches_of, examples_of, source_of

from msft.core.averages import Averaging
from msft.engine.averaging import Average
from msft.engine.optimizers import make_optimizer
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper
from msft.forward.runtime import Runtime
from msft.model.lighten import lighten
from msft.model.open import load_model
from msft.model.row_layout import fitting_layout
from msft.model.token_budget import ON_A_CPU
from msft.model.token_loss import TokenLoss
from msft.snapshots.state import trainable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=1)
    given = parser.parse_args()
    work = replace(work_of(given, keep=False), steps=1, warm=0)
    if work.threads:
        torch.set_num_threads(work.threads)
    results = Results(given.out, without_places(work), machine(work))
    device = torch.device(work.device)
    settings = EngineSettings(seed=work.seed, batch_size=work.batch_size, horizon=1, learning_rate=work.learning_rate)
    with tempfile.TemporaryDirectory() as place:
        source = source_of(work, Path(place))
        (batch,) = batches_of(work, examples_of(work, source))
        model = load_model(source)
    loss = TokenLoss(model).to(device).train()
    layout = fitting_layout(loss, device)
    lighten(loss, layout.rows, device, precision="autocast" if work.bf16 else "fp32", direct=True)
    runtime = Runtime(device=device, max_tokens=layout.budget(ON_A_CPU), bf16=work.bf16, layout=layout.rows)
    stepper, average = Stepper(loss, make_optimizer(trainable(model), settings), settings, runtime), None

    def seconds(average: Average | None) -> float:
        began = time.perf_counter()
        stepper.backward(batch, (1, 2, 3))
        stepper.update(work.learning_rate)
        if average is not None:
            average.update()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    average = Average(trainable(model), Averaging(100))
    pairs = []
    for turn in range(given.repeats + 1):
        first, second = (average, None) if turn % 2 else (None, average)
        taken = {first is None: seconds(first), second is None: seconds(second)}
        if turn:  # the first turn warms up
            pairs.append((taken[False], taken[True]))
    ratios = np.array([with_it / without for with_it, without in pairs])
    drawn = np.random.default_rng(0).choice(ratios, (2_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, 1), [0.025, 0.975])
    results.write(pairs=pairs, ratio=float(np.median(ratios)), interval=[float(low), float(high)])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters / 1e6:.0f} M parameters, {len(batch)} examples, {sum(map(len, batch))} tokens a step")
    plain = float(np.median([without for _, without in pairs]))
    print(f"{plain:.3f} s a step; with the average {np.median(ratios):.3f} times that ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
