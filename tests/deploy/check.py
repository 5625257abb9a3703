"""Reads what lies in deploy/ as those for whom it is written do. Words in, one value of JSON out.

    check.py chart CHART VALUES.json           → {"manifests": {template: [manifest …]}, "refused": text or null}
    check.py lint CHART                        → what Helm finds
    check.py manifests FILE.json VERSION       → what Kubernetes of that version would not take
    check.py compose FILE                      → the compose file, or a failure
    check.py promql FILE.json                  → the metrics that each expression reads
"""

import json
import re
import sys

import yaml


def chart(folder, values):
    import helm_python as helm

    with open(values) as file:
        values = json.load(file)
    with helm.Chart.load(folder) as loaded:
        try:
            loaded.validate_schema(values)
            rendered = loaded.render(values, name="shop", namespace="data")
        except helm.HelmError as refused:
            return {"manifests": {}, "notes": None, "refused": str(refused)}
    manifests, notes = {}, None
    for path, text in rendered.items():
        name = path.rsplit("/", 1)[-1]
        if name == "NOTES.txt":
            notes = text
        elif name.endswith(".yaml"):
            manifests[name] = [document for document in yaml.safe_load_all(text) if document]
    return {"manifests": manifests, "notes": notes, "refused": None}


def lint(folder):
    import helm_python as helm

    return json.loads(json.dumps(helm.lint(folder), default=str))


def manifests(file, version):
    import kubernetes_validate

    with open(file) as text:
        documents = json.load(text)
    wrong = []
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.InvalidSchemaError) as error:
            wrong.append(f"{document.get('kind')}: {error}")
    return wrong


def compose(file):
    from compose_spec import PyCompose

    # Compose puts variables in before it reads; all of them name folders here.
    with open(file) as text:
        parsed = PyCompose.from_yaml(re.sub(r"\$\{[A-Z_]+(:[?-][^}]*)?\}", "/a/folder", text.read()))
    parsed.validate()
    return parsed.to_dict()


def promql(file):
    import promql_parser

    def metrics(node, found):
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        for part in ("expr", "lhs", "rhs", "vector_selector", "param"):
            below = getattr(node, part, None)
            if below is not None:
                metrics(below, found)
        for below in getattr(node, "args", None) or []:
            metrics(below, found)
        return found

    with open(file) as text:
        expressions = json.load(text)
    return {text: sorted(metrics(promql_parser.parse(text), set())) for text in expressions}


word, *rest = sys.argv[1:]
json.dump({"chart": chart, "lint": lint, "manifests": manifests, "compose": compose, "promql": promql}[word](*rest), sys.stdout)
