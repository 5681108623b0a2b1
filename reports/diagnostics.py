"""What goes wrong in preference optimization: lengths, loops, copies and empty outputs of every method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.results import Diagnostic, Measurement, aligned
from reports.tables import Entry, Table, missing, number
from reports.variants import Variant

LENGTH_GAIN_LIMIT = 0.10  # unnormalized rewards grow the output first (Park et al. 2024)


@dataclass(frozen=True, slots=True)
class RelativeAlarm:
    """An alarm that only a comparison with the baseline can raise."""

    text: str
    raised: Callable[[float, float], bool]
    """(value, baseline's value) -> alarm."""


def _drop(limit: float) -> RelativeAlarm:
    return RelativeAlarm(f"{limit:.0%} under baseline", lambda value, base: value < base * (1 - limit))


RELATIVE_ALARMS: Mapping[str, RelativeAlarm] = {
    "seq_rep_4": RelativeAlarm("> baseline + 0.01", lambda value, base: value > base + 0.01),
    "distinct_1": _drop(0.10),
    "distinct_2": _drop(0.10),
    "unique_output_rate": _drop(0.10),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One diagnostic of one row: mean over its seeds; an alarm of any seed is an alarm."""

    value: float
    alarmed: bool


def length_gain(method: Sequence[Measurement], baseline: Sequence[Measurement]) -> float | None:
    """Mean over segments of (method's length - baseline's) / baseline's, in characters averaged over seeds.

    Segments that the baseline left empty have no such ratio and are left out; None if there are no lengths at
    all.
    """
    ids = tuple(baseline[0].lengths) if baseline else ()
    if not method or not ids:
        return None
    ours, theirs = (
        np.mean([aligned(each.lengths, ids) for each in measured], axis=0) for measured in (method, baseline)
    )
    usable = np.isfinite(ours) & np.isfinite(theirs) & (theirs > 0)
    if not usable.any():
        return None
    return float(((ours[usable] - theirs[usable]) / theirs[usable]).mean())


def _by_name(measured: Sequence[Measurement]) -> dict[str, list[Diagnostic]]:
    names: dict[str, list[Diagnostic]] = {}
    for each in measured:
        for diagnostic in each.diagnostics:
            names.setdefault(diagnostic.name, []).append(diagnostic)
    return names


def _findings(
    measured: Sequence[Measurement], baseline: Sequence[Measurement], gain_name: str, is_baseline: bool
) -> dict[str, Finding]:
    base = {
        name: float(np.mean([each.value for each in found])) for name, found in _by_name(baseline).items()
    }
    findings = {}
    for name, found in _by_name(measured).items():
        value = float(np.mean([each.value for each in found]))
        alarmed = any(bool(each.alarmed) for each in found)
        rule = RELATIVE_ALARMS.get(name)
        if rule and name in base and not is_baseline:
            alarmed = alarmed or rule.raised(value, base[name])
        findings[name] = Finding(value=value, alarmed=alarmed)
    gain = None if is_baseline else length_gain(measured, baseline)
    if gain is not None:
        findings[gain_name] = Finding(value=gain, alarmed=gain > LENGTH_GAIN_LIMIT)
    return findings


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticTable:
    """All diagnostics of one test set: by row label, then by name."""

    place: str
    findings: Mapping[str, Mapping[str, Finding]]
    alarms: Mapping[str, str]
    """What raises each alarm, in words."""

    def alarmed(self) -> list[str]:
        """A line for every row with alarms."""
        lines = []
        for label, found in self.findings.items():
            names = [name for name, finding in found.items() if finding.alarmed]
            if names:
                lines.append(f"{label} on {self.place}: alarm for {', '.join(names)}.")
        return lines

    def records(self) -> list[dict[str, Any]]:
        """One record a row and diagnostic, for the CSV."""
        return [
            {
                "place": self.place,
                "method": label,
                "diagnostic": name,
                "value": finding.value,
                "alarmed": finding.alarmed,
                "alarm": self.alarms.get(name, ""),
            }
            for label, found in self.findings.items()
            for name, finding in found.items()
        ]

    def table(self) -> Table:
        """Diagnostics down, methods across; alarms are marked with a word, not by colour alone."""
        rows = []
        for name in dict.fromkeys(name for found in self.findings.values() for name in found):
            entries = [Entry(text=name, details=(self.alarms[name],) if name in self.alarms else ())]
            for found in self.findings.values():
                if name not in found:
                    entries.append(missing(()))
                    continue
                finding = found[name]
                entries.append(
                    Entry(
                        text=number(finding.value, 3),
                        details=("alarm",) if finding.alarmed else (),
                        tone="bad" if finding.alarmed else "",
                    )
                )
            rows.append(tuple(entries))
        note = "Mean over seeds; an alarm in any seed is shown. Below each name: what raises its alarm."
        header = ("diagnostic", *self.findings)
        return Table(caption=self.place, header=header, rows=tuple(rows), notes=(note,))


def diagnose(
    rows: Sequence[Variant], baseline: Variant | None, test: str, place: str
) -> DiagnosticTable | None:
    """Collect the diagnostics of one test set; None where no row has any."""
    measured = {row.label: [cell.tests[test] for cell in row.cells if test in cell.tests] for row in rows}
    base = measured[baseline.label] if baseline else []
    gain_name = f"length_gain_vs_{baseline.label}" if baseline else "length_gain"
    findings = {
        row.label: found
        for row in rows
        if (found := _findings(measured[row.label], base, gain_name, row is baseline))
    }
    if not findings:
        return None
    alarms = _alarms([one for per_row in measured.values() for one in per_row], baseline is not None)
    alarms[gain_name] = f"> {LENGTH_GAIN_LIMIT:.0%}"
    return DiagnosticTable(place=place, findings=findings, alarms=alarms)


def _alarms(measured: Sequence[Measurement], relative: bool) -> dict[str, str]:
    """What raises each alarm: the scorer's rule where it could decide, and the one against the baseline."""
    alarms: dict[str, str] = {}
    for name, found in _by_name(measured).items():
        rules = [each.alarm for each in found if each.alarm and each.alarmed is not None][:1]
        if relative and name in RELATIVE_ALARMS:
            rules.append(RELATIVE_ALARMS[name].text)
        if rules:
            alarms[name] = "; ".join(rules)
    return alarms
