"""The comparisons of `benchmarks.step`: which sides run on which batches, and what is read off them."""

import copy
import importlib.util
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from benchmarks.our_steps import collated, our_side, reference_of, with_reference
from benchmarks.padded_twin import twin_dpo
from benchmarks.sides import Found, Side, compare
from benchmarks.table import Row, at_least, equal_within, plain
from benchmarks.workloads import Batches, Shape, Workload, needed_flops, shuffled_and_sorted
from po.settings import SpeedSettings

EXACT = 1e-4  # of loss, and of the gradient relative to its norm
GEMM_GOAL, BF16_GOAL = 0.70, 1.6
_KEPT = ", freed memory kept"
TRL_IS_HERE = all(importlib.util.find_spec(name) is not None for name in ("trl", "datasets"))


@dataclass(frozen=True)
class Goals:
    """Ratios to reach: DPO against the opponent as shipped and tuned, SimPO against it as shipped."""

    key: str
    shipped: float
    tuned: float
    simpo: float | None = None


CPU_GOALS = {"MT": Goals("G2", 6.0, 2.0, 2.5), "summ": Goals("G1", 7.0, 3.3, 5.0)}
CUDA_GOALS = {"MT": Goals("G12", 2.6, 1.4), "summ": Goals("G12", 3.4, 1.8)}


@dataclass(frozen=True)
class Setting:
    """One model on one workload.

    Attributes:
        shape: of the model.
        workload: its lengths.
        n_batches: that are counted, of either kind.
        device: ``cpu`` or ``cuda``.
        dtype: of the weights.
        exact: greatest distance of losses and gradients that still passes.
        goals: of the ratios; None for rows without verdicts.
    """

    shape: Shape
    workload: Workload
    n_batches: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    exact: float = EXACT
    goals: Goals | None = None


@dataclass
class Bench:
    """Runs the comparisons of a setting and keeps the shares of the peak for the end of the run."""

    setting: Setting
    needed_per_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Makes model, reference and batches."""
        given = self.setting
        self.policy = given.shape.build(dtype=given.dtype, device=given.device)
        self.reference = reference_of(self.policy)
        shuffled, ordered = shuffled_and_sorted(given.workload, given.shape.vocabulary, given.n_batches)
        self.shuffled = with_reference(shuffled, self.reference)
        self.ordered = with_reference(ordered, self.reference)

    @property
    def name(self) -> str:
        """Model and workload."""
        return f"{self.setting.shape.name} {self.setting.workload.name}"

    def run(self, method: str, batches: Batches, sides: list[Side]) -> tuple[Mapping[str, Found], list[Row]]:
        """Steps of the sides, and the rows that say how far they are from one another."""
        order = "shuffled" if batches is self.shuffled else "sorted"
        what = f"{self.name} {method.upper()}, {order}"
        print(f"{what}: {len(sides)} sides", file=sys.stderr, flush=True)
        found = compare(sides, self.setting.n_batches, self.setting.device)
        needed = [needed_flops(self.setting.shape, batch) for batch in batches]
        for name, entry in found.items():
            each = (flops / s for flops, s in zip(needed, entry.seconds, strict=True))
            self.needed_per_s[f"{what}: {name}"] = statistics.median(each)
        gaps = {
            "loss": max(entry.loss_gap for entry in found.values()),
            "gradient, relative": max(entry.gradient_gap for entry in found.values()),
        }
        exact = self.setting.exact
        rows = [
            equal_within(f"{what}: greatest difference of the {of}", gap, exact) for of, gap in gaps.items()
        ]
        return found, rows

    def figure(self, method: str, key: str = "") -> str:
        """Beginning of a row's name."""
        goals = self.setting.goals
        return f"{key or (goals.key if goals else '')} {self.name} {method}".lstrip()

    def ratio(self, figure: str, slow: Found, fast: Found, goal: float | None) -> Row:
        """How many times as long one side takes, with seconds of both."""
        value, seconds = slow.times(fast), f"({slow.median:.3f} s / {fast.median:.3f} s)"
        if goal is None:
            return plain(figure, f"{value:.2f}x {seconds}")
        return at_least(figure, value, goal, seconds)

    def dpo_shipped(self) -> list[Row]:
        """DPO on shuffled batches: the opponent asks its reference in every step, ours has stored values."""
        goals = self.setting.goals
        opponent = "TRL as shipped" if TRL_IS_HERE else "padded twin, live reference, checkpointed"
        sides = [
            replace(self._opponent(opponent, self.shuffled, live=True, checkpointing=True), keeps=False),
            our_side("ours, stored reference", self.policy, self.shuffled, "dpo"),
            our_side("ours, live reference", self.policy, self.shuffled, "dpo", live=self.reference),
        ]
        found, rows = self.run("dpo", self.shuffled, sides)
        theirs, ours, live = (found[side.name] for side in sides)
        figure = f"{self.figure('DPO')}, {opponent} / ours"
        return [
            self.ratio(f"{figure} with stored reference", theirs, ours, goals.shipped if goals else None),
            self.ratio(f"{figure} with live reference", theirs, live, None),
            *rows,
        ]

    def dpo_tuned(self) -> list[Row]:
        """DPO on sorted batches with stored reference values on both sides."""
        goals, figure = self.setting.goals, self.figure("DPO")
        opponent = "TRL tuned" if TRL_IS_HERE else "padded twin, tuned"
        named = {how: f"{opponent}, {how}" for how in ("checkpointed", "not checkpointed")}
        sides = []
        for how, name in named.items():
            side = self._opponent(name, self.ordered, live=False, checkpointing=how == "checkpointed")
            sides += [replace(side, keeps=False), replace(side, name=f"{name}{_KEPT}")]
        twin = "padded twin, head on completions, not checkpointed"
        if TRL_IS_HERE:
            batches = collated(self.ordered, "dpo")
            sides.append(twin_dpo(twin, self.policy, batches, checkpointing=False))
        plainly, off = "ours, speed-ups off", {"speed": SpeedSettings(sharing="off", head="recompute")}
        sides.append(our_side(plainly, self.policy, self.ordered, "dpo", options=off))
        sides.append(our_side("ours", self.policy, self.ordered, "dpo"))
        found, rows = self.run("dpo", self.ordered, sides)
        tuned = self._tuned(figure, found, list(named.values()), goals.tuned if goals else None)
        for name in (*(f"{name}{_KEPT}" for name in named.values()), twin, plainly):
            if name in found:
                tuned.append(self.ratio(f"{figure}, {name} / ours", found[name], found["ours"], None))
        return tuned + rows

    def simpo(self) -> list[Row]:
        """SimPO on shuffled batches as shipped, and on sorted ones."""
        from benchmarks.trl_steps import trl_simpo

        goals, figure = self.setting.goals, self.figure("SimPO", "G3")
        shipped, shuffled, ordered = "TRL as shipped", self.shuffled, self.ordered
        sides = [
            replace(trl_simpo(shipped, self.policy, shuffled, checkpointing=True), keeps=False),
            our_side("ours", self.policy, shuffled, "simpo"),
        ]
        found, rows = self.run("simpo", shuffled, sides)
        ratio = f"{figure}, {shipped} / ours"
        rows = [self.ratio(ratio, found[shipped], found["ours"], goals.simpo if goals else None), *rows]
        names = ["TRL sorted, checkpointed", "TRL sorted, not checkpointed"]
        sides = [
            *(trl_simpo(name, self.policy, ordered, checkpointing=name == names[0]) for name in names),
            our_side("ours", self.policy, ordered, "simpo"),
        ]
        found, more = self.run("simpo", ordered, sides)
        return [*rows, *self._tuned(figure, found, names, None), *more]

    def bf16(self) -> list[Row]:
        """Ours in bfloat16 against ours in float32, on sorted batches; how far loss and gradient drift."""
        whole = copy.deepcopy(self.policy).to(torch.bfloat16)
        sides = [
            our_side("fp32", self.policy, self.ordered, "dpo"),
            our_side("autocast", self.policy, self.ordered, "dpo", arguments={"bf16": True}),
            our_side("weights", whole, self.ordered, "dpo"),
        ]
        found = compare(sides, self.setting.n_batches, self.setting.device)
        rows = []
        for name, goal in (("autocast", BF16_GOAL), ("weights", None)):
            entry, figure = found[name], f"G8 {self.name} DPO, ours fp32 / ours bf16 {name}"
            drift = f"{entry.loss_gap:.1e}; {entry.gradient_gap:.1%}"
            rows.append(self.ratio(figure, found["fp32"], entry, goal))
            rows.append(plain(f"{figure}: drift of loss; of gradient, relative", drift))
        return rows

    def shares(self, peak: float) -> list[Row]:
        """Needed FLOPs of each side against a peak in FLOP/s; the goal G4 is ours on DPO."""
        rows = []
        for name, rate in self.needed_per_s.items():
            figure, share = f"G4 share of the GEMM peak, {name}", rate / peak
            judged = (
                self.setting.device == "cpu"
                and "DPO" in name
                and name.endswith((": ours", "stored reference"))
            )
            rows.append(
                at_least(figure, share, GEMM_GOAL, unit="") if judged else plain(figure, f"{share:.2f}")
            )
        return rows

    def _tuned(
        self, figure: str, found: Mapping[str, Found], names: list[str], goal: float | None
    ) -> list[Row]:
        """The faster of the opponents is judged; the others are listed."""
        faster = min(names, key=lambda name: found[name].median)
        return [
            self.ratio(
                f"{figure}, {name} / ours", found[name], found["ours"], goal if name == faster else None
            )
            for name in names
        ]

    def _opponent(self, name: str, batches: Batches, *, live: bool, checkpointing: bool) -> Side:
        if TRL_IS_HERE:
            from benchmarks.trl_steps import trl_dpo

            return trl_dpo(
                name, self.policy, self.reference, batches, precompute=not live, checkpointing=checkpointing
            )
        return twin_dpo(
            name,
            self.policy,
            collated(batches, "dpo"),
            live=self.reference if live else None,
            checkpointing=checkpointing,
        )


def profile(bench: Bench, rows: int = 15) -> str:
    """Where the time of our DPO steps goes, by operator."""
    side = our_side("ours", bench.policy, bench.ordered, "dpo")
    side.step(0)
    side.gradients()
    cuda = bench.setting.device == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    with torch.profiler.profile(activities=activities) as found:
        for number in range(bench.setting.n_batches):
            side.step(number)
            side.gradients()
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    table: str = found.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=45)
    return table
