"""The result document of `octc verify` (docs/parity.md, section 16)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from octc.stats.cluster_bootstrap import GENERATOR
from octc.stats.comparison import ClassResult, Comparison
from octc.stats.metrics import Metrics
from octc.stats.proportions import (
    Interval,
    mcnemar_exact,
    mcnemar_midp,
    p_non_inferior,
    p_tost,
    tier_needed,
    tier_reached,
    wilson,
)
from octc.stats.subgroups import Subgroup
from octc.stats.test_plan import ParityOptions

if TYPE_CHECKING:
    from octc.bench.parity.claim import ParityReport, Side

SCHEMA = "1.0"
UNITS = "percent and percentage points; areas, agreement, ECE, Brier, KL and p as fractions"
# blocks that are null where the candidate's logits are not finite
MEASURED = (
    "counts",
    "accuracy",
    "tiers",
    "classes",
    "macro",
    "confusion",
    "auc",
    "calibration",
    "agreement",
    "facts",
)


def percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def both(limits: Interval | None) -> list[float] | None:
    """An interval in percent, or None."""
    return None if limits is None else [100 * limit for limit in limits]


def _side(side: Side) -> dict[str, Any]:
    names = ("name", "artifact_sha256", "role", "model", "target", "precision", "runtime")
    facts = dict(side.facts)
    known = {name: facts.pop(name, None) for name in ("version", "device", "cpu_isa", "threads")}
    return {
        **{name: getattr(side, name) for name in names},
        **known,
        "preprocess_sha256": side.preprocess_sha256,
        "temperature": side.temperature,
        "source": side.source,
        "facts": facts,
    }


def plan_json(options: ParityOptions, locked_at: str | None) -> dict[str, Any]:
    """The plan, fixed before the candidate was evaluated."""
    return {
        "alpha": options.alpha,
        "margin_pp": options.margin,
        "class_margin_pp": options.class_margin,
        "claim": options.claim,
        "tier": options.tier,
        "ece_slack": options.ece_slack,
        "auc_margin_points": options.auc_margin,
        "locked_at": locked_at,
        "bootstrap": {"resamples": options.bootstrap, "seed": options.seed, "generator": GENERATOR, "numpy": np.__version__},
    }


def _power(comparison: Comparison) -> dict[str, Any]:
    plan = comparison.plan
    return {
        "d_plan": percent(plan.discordance),
        "d_plan_source": plan.discordance_source,
        "icc": plan.icc,
        "icc_source": plan.icc_source,
        "deff_plan": plan.deff,
        "n_eff": plan.n_eff,
        "power": plan.power,
        "needed_n_60": plan.needed_60,
        "needed_n_80": plan.needed_80,
        "smallest_n": plan.smallest,
    }


def _accuracy(comparison: Comparison, options: ParityOptions) -> dict[str, Any]:
    pair, n = comparison.pair, comparison.n
    hits = {name: comparison.hits(name) for name in ("reference", "candidate")}
    return {
        **{name: percent(k / n) for name, k in hits.items()},
        "hits": hits,
        "wilson": {name: both(wilson(k, n, options.alpha)) for name, k in hits.items()},
        "wilson_deff": {name: both(wilson(k / pair.deff, n / pair.deff, options.alpha)) for name, k in hits.items()},
        "difference_pp": percent(pair.difference),
        "tango": both(pair.tango),
        "tango_scaled": both(pair.scaled),
        "bootstrap": both(pair.bootstrap),
        "bootstrap_reason": pair.bootstrap_reason,
        "deciding": both(pair.deciding),
        "decided_by": pair.decided_by,
        "deff": pair.deff,
        "deff_obs": pair.deff_obs,
        "deff_plan": pair.deff_plan,
        "mean_cluster_size": pair.mean_size,
        "discordant_patients": pair.discordant_patients,
        "p_ni": p_non_inferior(*pair.effective, options.delta),
        "p_tost": p_tost(*pair.effective, options.delta),
        "mcnemar_exact": mcnemar_exact(pair.lost, pair.gained),
        "mcnemar_midp": mcnemar_midp(pair.lost, pair.gained),
    }


def _tiers(comparison: Comparison) -> dict[str, Any]:
    k_r, k_c = comparison.hits("reference"), comparison.hits("candidate")
    reached = {tier: tier_reached(k_r, k_c, tier) for tier in ("99", "99.9")}
    return {**reached, "needed_99": tier_needed(k_r, "99"), "needed_99_9": tier_needed(k_r, "99.9")}


def class_specificity(figures: Metrics, k: int) -> tuple[int, int]:
    """(right, all) of the images of the other classes: counts of the specificity of class k."""
    one = figures.per_class[k]
    return one.tn, one.tn + one.fp


def _class(comparison: Comparison, k: int, result: ClassResult, options: ParityOptions) -> dict[str, Any]:
    head: dict[str, Any] = {"name": result.name, "n": result.n}
    pair = result.pair
    if pair is None:
        return {**head, "reason": result.guard_reason, "guard": False}
    sides: dict[str, Any] = {}
    for name, figures in comparison.figures.items():
        one = figures.per_class[k]
        tn, others = class_specificity(figures, k)
        sides[name] = {
            "tp": one.tp,
            "sens": percent(one.sensitivity),
            "sens_wilson": both(wilson(one.tp, one.support, options.alpha)),
            "sens_wilson_deff": both(wilson(one.tp / pair.deff, one.support / pair.deff, options.alpha)),
            "tn": tn,
            "others": others,
            "spec": percent(one.specificity),
            "spec_reason": None if others else "single_class",
            "spec_wilson": both(wilson(tn, others, options.alpha)),
            "sens_interval": both(comparison.intervals[name].get(f"sensitivity:{k}")),
            "spec_interval": both(comparison.intervals[name].get(f"specificity:{k}")),
            "ppv": percent(one.precision),
            "f1": percent(one.f1),
        }
    return {
        **head,
        "patients": pair.patients,
        **sides,
        "lost": pair.lost,
        "gained": pair.gained,
        "D_pp": percent(pair.difference),
        "tango": both(pair.tango),
        "deciding": both(pair.deciding),
        "deff": pair.deff,
        "p": result.p,
        "p_holm": result.p_holm,
        "p_ni": result.p_ni,
        "p_ni_holm": result.p_ni_holm,
        "harm": result.harm,
        "guard": result.guard,
        "guard_reason": result.guard_reason,
        "needed_n": result.needed,
    }


def _macro(comparison: Comparison, name: str) -> dict[str, Any]:
    figures, intervals = comparison.figures[name], comparison.intervals[name]
    single = sum(one.support > 0 for one in figures.per_class) == 1
    return {
        "sensitivity": percent(figures.macro_sensitivity),
        "sensitivity_interval": both(intervals["macro_sensitivity"]),
        "specificity": percent(figures.macro_specificity),
        "specificity_interval": both(intervals["macro_specificity"]),
        "f1": percent(figures.macro_f1),
        "reason": "single_class" if single else None,
        "over": [comparison.classes[k] for k, one in enumerate(figures.per_class) if one.support],
        "disease_vs_normal_sensitivity": percent(figures.disease_vs_normal_sensitivity),
        "disease_vs_normal_specificity": percent(figures.disease_vs_normal_specificity),
    }


def _calibration(comparison: Comparison, name: str) -> dict[str, Any]:
    intervals = {key: limits for key, limits in comparison.intervals[name].items() if key in ("ece_mass", "brier", "nll")}
    shown = {key: None if limits is None else list(limits) for key, limits in intervals.items()}
    fitted = comparison.temperatures[name]
    return {
        **comparison.calibration[name],
        "intervals": shown,
        "temperature": fitted.value,
        "temperature_fit": fitted.to_json(),
        "after_temperature": comparison.after_temperature[name],
    }


def _auc(comparison: Comparison) -> dict[str, Any] | None:
    """Areas as fractions; classes and their mean."""
    if not comparison.auc:
        return None
    *classes, macro = [row.to_json() for row in comparison.auc]
    return {"classes": classes, "macro": macro}


def _subgroup(one: Subgroup, alpha: float) -> dict[str, Any]:
    (before, low), (after, high) = one.accuracy("reference", alpha), one.accuracy("candidate", alpha)
    return {
        "column": one.column,
        "value": one.value,
        "n": one.n,
        "patients": one.patients,
        "accuracy": {"reference": percent(before), "candidate": percent(after)},
        "wilson": {"reference": both(low), "candidate": both(high)},
        "lost": one.lost,
        "gained": one.gained,
        "D_pp": percent(one.difference),
        "deciding": both(one.deciding),
        "agreement": one.agreement,
        "p": one.p,
        "p_holm": one.p_holm,
        "loss": one.loss,
    }


def _agreement(comparison: Comparison) -> dict[str, Any]:
    found = {key: value for key, value in comparison.agreement.items() if key not in ("s", "wilson")}
    limits = comparison.intervals["agreement"]["rate"]
    return {
        **found,
        "wilson": None if comparison.agreement["wilson"] is None else list(comparison.agreement["wilson"]),
        "bootstrap": None if limits is None else list(limits),
        "logit_scale": "raw",
        "s": comparison.agreement["s"],
    }


def _measured(report: ParityReport, comparison: Comparison) -> dict[str, Any]:
    pair, options, backend = comparison.pair, report.options, report.backend()
    return {
        "plan": {**plan_json(options, report.set.locked_at), **_power(comparison)},
        "counts": {
            "both_right": comparison.both_right,
            "lost": pair.lost,
            "gained": pair.gained,
            "both_wrong": comparison.both_wrong,
            "ties": comparison.ties,
        },
        "accuracy": _accuracy(comparison, options),
        "tiers": _tiers(comparison),
        "classes": [_class(comparison, k, result, options) for k, result in enumerate(comparison.per_class)],
        "macro": {name: _macro(comparison, name) for name in comparison.figures},
        "confusion": comparison.matrices,
        "auc": _auc(comparison),
        "calibration": {name: _calibration(comparison, name) for name in comparison.calibration} or None,
        "agreement": _agreement(comparison),
        "backends": [] if backend is None else [backend],
        "facts": comparison.facts(),
    }


def golden_json(golden: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The golden replay; `max_delta_over_s` is its largest difference."""
    return None if golden is None else {**golden, "max_delta_over_s": golden.get("delta_over_s")}


def report_json(report: ParityReport) -> dict[str, Any]:
    """The document of one claim."""
    info, verdict = report.set, report.verdict
    unmeasured: dict[str, Any] = {
        "plan": plan_json(report.options, info.locked_at),
        **dict.fromkeys(MEASURED),
        "backends": [],
        "not_finite": list(report.not_finite),
    }
    return {
        "schema_version": SCHEMA,
        "command": "verify",
        "units": UNITS,
        "against": report.against,
        "reference": _side(report.reference),
        "candidate": _side(report.candidate),
        "set": {
            "name": info.name,
            "n": report.n,
            "patients": report.patients,
            **report.known.to_json(),
            "sha256_of_ids": report.ids_sha256,
            "uses_of_test": info.uses_of_test,
            "readings_of_test": info.readings_of_test,
            "leakage": info.leakage,
            "protocol": info.protocol,
            "tta": report.tta,
            "note": info.note,
        },
        **(unmeasured if report.comparison is None else _measured(report, report.comparison)),
        "subgroups": [_subgroup(one, report.options.alpha) for one in report.subgroups],
        "golden": golden_json(report.golden),
        "verdict": {
            "word": report.word,
            "withheld": report.withheld,
            "reasons": list(verdict.reasons),
            "better": verdict.better,
            "loss_shown": verdict.loss_shown,
            "exploratory": info.exploratory is not None,
            "exploratory_reason": info.exploratory,
            "exit_code": report.exit_code,
            "parts": [asdict(part) for part in verdict.parts],
        },
        "warnings": list(report.warnings),
    }
