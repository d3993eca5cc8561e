"""The result of `ggufbench verify --perplexity`: the divergences of both programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ggufbench.comparing.llama_perplexity import TOLERANCE, DivergenceVerification
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import stack, table, text
from ggufbench.text import count


def divergences_report(found: DivergenceVerification) -> RenderableType:
    """Each case, the skipped ones, and the result."""
    shown = table("Model", ">Exact", ">Stored", ">llama-perplexity", ">Difference")
    for case in found.cases:
        shown.add_row(
            Name(case.model),
            Text(f"{case.ours:.6f}"),
            Text(f"{case.stored:.6f}"),
            Text(f"{case.theirs:.6f}"),
            Text(f"{100 * case.difference:.3f} %", style="green" if case.agrees else "red"),
        )
    agreeing = sum(case.agrees for case in found.cases)
    result = (
        f"Mean divergences in nats over {max((case.tokens for case in found.cases), default=0):,} tokens by "
        f"ggufbench, from the exact reference and from the reference as "
        "llama-perplexity stores it, in 16 bits, and by llama-perplexity. The last two agree within "
        f"{100 * TOLERANCE:g} % in {agreeing} of {count(len(found.cases), 'case')}."
    )
    return stack(
        shown if found.cases else None,
        *(text(f"{case_id} was skipped: {reason}") for case_id, reason in found.skipped),
        Text(result) if found.cases else Text("There was nothing to compare."),
    )


def document(found: DivergenceVerification) -> dict[str, Any]:
    """The result for JSON."""
    return {
        "llama_perplexity": found.program,
        "tolerance": TOLERANCE,
        "exit_code": found.exit_code,
        "cases": [
            {**asdict(case), "difference": case.difference, "agrees": case.agrees} for case in found.cases
        ],
        "skipped": [{"case_id": case_id, "reason": reason} for case_id, reason in found.skipped],
    }
