"""A plan as text: a table, one line, or JSON values."""

from __future__ import annotations

from typing import Any

from tunewright.planning.estimate import SAFE, Outlook, Plan, gigabytes


def line(outlook: Outlook) -> str:
    """What a run says at its start."""
    memory = f"{gigabytes(outlook.bytes)} GB of {_available(outlook)} on the {outlook.machine.name}"
    warning = "" if outlook.fits else ", which is too much or nearly so"
    return f"estimate: memory {memory}{warning}; {duration(outlook.seconds_per_step)} a step, {duration(outlook.seconds)} in all"


def table(plan: Plan) -> str:
    """The whole plan, for people."""
    parts, outlook = plan.outlook.components(), plan.outlook
    width = max(map(len, parts))
    lines = [f"  {name:<{width}}  {gigabytes(size):>7}" for name, size in parts.items()]
    return "\n".join((f"memory at its peak on the {outlook.machine.name}, in GB:", *lines,
                      f"  {'together':<{width}}  {gigabytes(outlook.bytes):>7}", *_facts(plan))) + "\n"


def values(plan: Plan) -> dict[str, Any]:
    """The plan for programs; bytes, seconds and tokens."""
    safe, outlook = plan.safe, plan.outlook
    batches, largest = outlook.batches, outlook.batches.largest
    return {
        "device": outlook.machine.name, "components": dict(outlook.components()), "peak_bytes": outlook.bytes,
        "available_bytes": outlook.machine.available, "fits": outlook.fits, "gradient_checkpointing": outlook.recomputes,
        "layers": outlook.step.layers, "activations_bytes": outlook.step.kept, "activations_bytes_otherwise": plan.other.kept,
        "rows": outlook.rows.source, "largest_batch": {"rows": len(largest.sequences), "positions": largest.positions},
        "tokens_per_step": round(batches.tokens), "steps": batches.steps, "seconds_per_step": outlook.seconds_per_step,
        "seconds": outlook.seconds, "operations_of_largest_batch": outlook.step.work.flops,
        "largest_safe": None if safe is None else {"per_device_train_batch_size": len(safe.sequences), "tokens": safe.tokens}}


def _facts(plan: Plan) -> list[str]:
    outlook, batches = plan.outlook, plan.outlook.batches
    kept, other = (gigabytes(step.kept) for step in (outlook.step, plan.other))
    now, instead = ("on", "off") if outlook.recomputes else ("off", "on")
    steps = "an unknown number of steps" if batches.steps is None else f"{batches.steps} steps"
    share = "" if outlook.machine.available is None else f" (of this {SAFE:.0%} may be planned for)"
    return [
        f"available: {_available(outlook)}{share}: {'it fits' if outlook.fits else 'IT DOES NOT FIT'}",
        f"gradient checkpointing {now}: {outlook.step.layers} layers keep {kept} GB for the backward pass; {instead}: {other} GB",
        f"largest micro-batch: {len(batches.largest.sequences)} rows, {batches.largest.positions} positions, by {outlook.rows.source}",
        f"tokens per step: {batches.tokens:.0f}",
        f"time: {duration(outlook.seconds_per_step)} a step, {duration(outlook.seconds)} for {steps}",
        _suggestion(plan)]


def _suggestion(plan: Plan) -> str:
    if plan.outlook.machine.available is None:
        return "largest safe micro-batch: unknown, because the memory of this machine is"
    if plan.safe is None:
        return "largest safe micro-batch: not even one row fits" + ("" if plan.outlook.recomputes else "; try gradient_checkpointing: true")
    rows, tokens = len(plan.safe.sequences), plan.safe.tokens
    by_tokens = f" (micro_batch_tokens: {tokens})" if plan.takes_tokens else ""
    return f"largest safe micro-batch: {rows} of the longest rows (per_device_train_batch_size: {rows}), {tokens} tokens{by_tokens}"


def duration(seconds: float | None) -> str:
    """Seconds in a unit that fits."""
    if seconds is None:
        return "an unknown time"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _available(outlook: Outlook) -> str:
    return "an unknown amount" if outlook.machine.available is None else f"{gigabytes(outlook.machine.available)} GB"
