"""Answers of the service as JSON: the same words in the answers, in `/openapi.json` and on the page."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, model_validator

from tailorset.inference.predictor import Looked, Predictor, is_unfamiliar
from tailorset.thresholds.rules import LabelDecision


class Problem(BaseModel):
    """Body of every answer that is not 2xx."""

    error: str = Field(description="one line: what is wrong with the request, and how to correct it")


class Rule(BaseModel):
    """Rule for one label. All values are calibrated probabilities, or plain scores if nothing was calibrated."""

    label: str
    seen: bool = Field(description="annotated in photos; otherwise learned from generated images")
    threshold: float = Field(description="present from here on")
    abstain_low: float = Field(description="above it, and below the threshold, the question is better left open")
    abstain_high: float = Field(description="below it, and from the threshold on, too")


class LabelAnswer(Rule):
    score: float = Field(description="of the classifier, in [0, 1]")
    probability: float | None = Field(description="calibrated; null if the model has no thresholds")
    decision: LabelDecision


class Attention(BaseModel):
    """Attention to a label over the whole photo: rows from the top, columns from the left."""

    label: str
    weights: list[list[float]] = Field(description="sum to 1")


class ModelAnswer(BaseModel):
    """Answer of one model on a photo."""

    model: str
    version: str | None
    novelty: float | None = Field(
        description="distance from the photos of training; null if the model has no limit of it"
    )
    unfamiliar: bool | None = Field(description="whether novelty is above 1: decisions are unreliable then")
    labels: list[LabelAnswer]
    map: Attention | None = None


class Answer(ModelAnswer):
    challenger: ModelAnswer | None = Field(None, description="the second model's answer, if it was requested")


class ModelCard(BaseModel):
    """Origin of a model, and its labels."""

    model: str
    version: str | None
    run_id: str | None
    git_revision: str | None
    calibrated: bool
    labels: list[Rule]
    num_examples: int = Field(description="photos to try, at /examples/0 and so on")


class Models(ModelCard):
    challenger: ModelCard | None = Field(None, description="the second model, if one is served")


class Status(BaseModel):
    status: str


class Predictions(BaseModel):
    predictions: list[dict[str, float | str | None]] = Field(
        description="per image: novelty; and probability/, decision/, threshold/ and score/LABEL of every label"
    )


class Split(BaseModel):
    columns: list[str]
    data: list[list[Any]]


class Invocation(BaseModel):
    """MLflow's scoring protocol: one column `image`, a file as base64 in each row."""

    dataframe_split: Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Invocation:
        if (self.dataframe_split is None) == (self.dataframe_records is None):
            raise ValueError("give either dataframe_split or dataframe_records")
        return self

    def images(self) -> list[Any]:
        """Return the column `image`.

        Raises:
            ValueError: a row without it.
        """
        split, records = self.dataframe_split, self.dataframe_records or []
        if split:
            for number, row in enumerate(split.data):
                if len(row) != len(split.columns):
                    raise ValueError(f"row {number} has {len(row)} values for {len(split.columns)} columns")
            records = [dict(zip(split.columns, row, strict=True)) for row in split.data]
        for number, record in enumerate(records):
            if "image" not in record:
                raise ValueError(f"row {number} has the columns {list(record)[:9]}: give one named 'image'")
        return [record["image"] for record in records]


def describe_model(predictor: Predictor) -> ModelCard:
    origin = predictor.origin
    return ModelCard(
        model=origin.uri,
        version=origin.version,
        run_id=origin.run_id,
        git_revision=origin.commit,
        calibrated=predictor.thresholds is not None,
        labels=_rules(predictor),
        num_examples=len(predictor.examples),
    )


def model_answer(predictor: Predictor, looked: Looked, attention: Attention | None) -> ModelAnswer:
    """Return the answer on one photo. looked: the results on that photo."""
    novelty = None if looked.novelty is None else float(looked.novelty[0])
    decisions = predictor.decide(looked.scores)
    probabilities = decisions.probabilities[0].tolist() if predictor.thresholds else [None] * len(predictor.labels)
    rows = zip(_rules(predictor), looked.scores[0].tolist(), probabilities, decisions.words[0], strict=True)
    return ModelAnswer(
        model=predictor.origin.uri,
        version=predictor.origin.version,
        novelty=novelty,
        unfamiliar=is_unfamiliar(novelty),
        labels=[
            LabelAnswer(**dict(rule), score=score, probability=probability, decision=word)
            for rule, score, probability, word in rows
        ],
        map=attention,
    )


def _rules(predictor: Predictor) -> list[Rule]:
    return [
        Rule(
            label=label,
            seen=label in predictor.seen,
            threshold=rule.threshold,
            abstain_low=rule.abstain_low,
            abstain_high=rule.abstain_high,
        )
        for label, rule in predictor.rules.rules.items()
    ]
