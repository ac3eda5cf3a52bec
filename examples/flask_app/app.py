"""A Flask application with a Fairway model inside.

    flask --app 'examples.flask_app.app:create_app("payments")' run --port 5000

`fairway.load` gives what the server would: the same contract, the same answers, the same prediction log below
the same home. What Flask adds is its own business: here, JSON in, JSON out, and errors as HTTP answers.
"""

from __future__ import annotations

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

import fairway
from fairway.core.errors import FairwayError, InvalidInput


def create_app(name: str = "payments", home: str | None = None) -> Flask:
    """The application. The model is loaded once, here, so that a broken one stops the start and not a request."""
    app = Flask(__name__)
    model = fairway.load(name, home=home)

    @app.post("/score")
    def score() -> ResponseReturnValue:
        """`{"payments": [{...}, ...]}` -> `{"fraud": [...], "probability": [...]}`, one entry per payment."""
        body = request.get_json()
        rows = body.get("payments") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            return jsonify(error='send {"payments": [{...}, ...]}'), 400
        answers = model.predict(rows)
        return jsonify(
            fraud=[bool(label) for label in answers["label"]],
            probability=[float(row[1]) for row in answers["probabilities"]],
        )

    @app.errorhandler(InvalidInput)
    def refused(error: InvalidInput) -> ResponseReturnValue:
        """The caller's data breaks the contract: say where."""
        problems = [{"field": p.field, "row": p.row, "reason": p.reason} for p in error.problems]
        return jsonify(error=str(error), code=error.code, problems=problems), 400

    @app.errorhandler(FairwayError)
    def failed(error: FairwayError) -> ResponseReturnValue:
        """Anything else is ours to mend: the log has the details, the caller gets the code."""
        app.logger.error("%s: %s", error.code, error)
        return jsonify(error="The prediction could not be made.", code=error.code), 500

    return app
