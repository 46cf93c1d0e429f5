"""Scripts that run inside containers, which see what nobody outside can reach; each prints one JSON value."""

NAMES = """
import json, urllib.request
base = "http://prometheus:9090/api/v1/"
print(json.dumps({
    "names": json.load(urllib.request.urlopen(base + "label/__name__/values"))["data"],
    "rules": [r["health"] for g in json.load(urllib.request.urlopen(base + "rules"))["data"]["groups"] for r in g["rules"]],
}))
"""
"""Prometheus: the names of all metrics, and the health of every rule."""

RUNS = """
import json, urllib.request
def post(path, body):
    request = urllib.request.Request("http://mlflow:5000/api/2.0/mlflow/" + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
found = post("experiments/search", {"max_results": 100}).get("experiments", [])
ids = [e["experiment_id"] for e in found if e["name"] == "flights"]
runs = post("runs/search", {"experiment_ids": ids}).get("runs", []) if ids else []
print(json.dumps([{t["key"]: t["value"] for t in run["data"]["tags"]} for run in runs]))
"""
"""MLflow: the tags of every run."""

COUNT = """
import collections, json
from driftloop.cli.history import read_topics
found = collections.defaultdict(set)
champions = []
for record in read_topics("kafka:9092", "flights"):
    found[record.message.topic].add(record.message.id)
    if record.message.topic == "releases" and record.message.payload.HasField("champion"):
        champions.append(record.message.payload.champion.model_id)
print(json.dumps({"ids": {topic: len(ids) for topic, ids in found.items()}, "champions": champions}))
"""
"""Kafka: distinct ids per topic, and every champion there was."""
