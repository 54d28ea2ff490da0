"""What a version is judged against, made once when it is registered: distributions, figures, calibration."""

from __future__ import annotations

from db.profiles import Reference
from monitoring.estimate import calibration
from monitoring.label_texts import Places
from monitoring.outcomes import outcomes_of
from monitoring.profile import profile_of
from monitoring.schema import schema_of
from registry.examine import Sample
from registry.signature import Signature


def reference_of(signature: Signature, sample: Sample) -> Reference:
    """Of a reference that was scored; without the target there are no outcomes and no calibration."""
    output = signature.output
    assert output is not None, "the reference was scored, so its output is known"
    schema = schema_of(signature, sample.features, sample.scores)
    profile = profile_of(schema, sample.features, sample.scores, [])
    outcomes, fitted = None, None
    if sample.targets is not None:
        predictions = [text_of(value) for value in sample.scores.prediction.tolist()]
        probabilities = sample.scores.probabilities
        probability = None
        if probabilities is not None and output.positive is not None and output.classes is not None:
            place = output.classes.index(output.positive)
            probability, probabilities = probabilities[:, place], None
            truth = Places(output.classes).of(sample.targets)
            known = (truth >= 0) & (truth < len(output.classes))
            if known.any():
                fitted = calibration(probability[known], truth[known] == place).to_json()
        outcomes = outcomes_of(output, predictions, probability, probabilities, sample.targets).to_json()
    return Reference(schema.model_dump(mode="json"), schema.digest, profile.to_bytes(), outcomes, fitted)


def text_of(value: object) -> str:
    """A prediction as it is stored."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
