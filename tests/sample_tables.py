"""Three tables as people bring them, drawn with a seed: rare positives with late labels, classes, and a number."""

from __future__ import annotations

import numpy as np
import pandas as pd


def payments(rows: int = 8_000, seed: int = 1) -> pd.DataFrame:
    """Which payments are charged back (4 % of them, known 1 to 6 hours later); from 60 % on in another country."""
    rng = np.random.default_rng(seed)
    paid_at = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.cumsum(rng.exponential(150.0, rows)).round(), unit="s")
    shop = rng.integers(0, 40, rows)
    country = rng.choice(["AT", "BE", "DK", "FR", "IT"], rows, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    amount = np.round(rng.lognormal(3.5, 0.9, rows), 2)
    age_days = np.where(rng.random(rows) < 0.12, np.nan, rng.exponential(200.0, rows).round(1))
    risky = np.where(np.arange(rows) < 0.6 * rows, country == "IT", country == "BE")
    logit = -4.6 + 2.6 * risky + 0.5 * (np.log(amount) - 3.5) + 1.6 * (shop % 8 == 0) - 0.004 * np.nan_to_num(age_days)
    charged = rng.random(rows) < 1.0 / (1.0 + np.exp(-logit))
    return pd.DataFrame(
        {
            "Payment no.": [f"P{number:07d}" for number in range(rows)],
            "paid at": paid_at,
            "shop": [f"shop-{number}" for number in shop],
            "country": country,
            "amount": amount,
            "account age (days)": age_days,
            "currency": "EUR",
            "charged_back": np.where(charged, "yes", "no"),
            "settled at": paid_at + pd.to_timedelta(rng.uniform(3_600, 6 * 3_600, rows).round(), unit="s"),
        }
    )


def tickets(rows: int = 6_000, seed: int = 2) -> pd.DataFrame:
    """Which of four teams solves a ticket; no time, one row in fifty without an answer, severity as a code."""
    rng = np.random.default_rng(seed)
    product = rng.choice(["app", "card", "loan", "web"], rows)
    severity = rng.integers(1, 5, rows)
    words = rng.poisson(60, rows).astype(float)
    words[rng.random(rows) < 0.2] = np.nan
    teams = np.array(["billing", "core", "fraud", "helpdesk"])
    scores = rng.gumbel(size=(rows, 4))
    scores[:, 0] += 2.5 * (product == "loan")
    scores[:, 1] += 2.0 * (severity == 4) + 1.0 * (product == "app")
    scores[:, 2] += 2.5 * (product == "card") - 0.5
    scores[:, 3] += 1.5 * (severity == 1) + 0.02 * np.nan_to_num(words, nan=60.0) - 1.0
    team = teams[scores.argmax(axis=1)].astype(object)
    team[rng.random(rows) < 0.02] = None
    return pd.DataFrame(
        {"product": product, "severity": severity, "words": words, "weekend": rng.random(rows) < 0.3, "team": team}
    )


def demand(rows: int = 6_000, seed: int = 3) -> pd.DataFrame:
    """How much power a district draws each hour; it grows by a third at 60 % of the table."""
    rng = np.random.default_rng(seed)
    hours = np.arange(rows)
    at = pd.Timestamp("2023-01-01", tz="UTC") + pd.to_timedelta(hours, unit="h")
    district = rng.choice(["north", "south", "harbour"], rows)
    warmth = 12.0 + 9.0 * np.sin((hours - 2_500) / 8_760 * 2 * np.pi) + rng.normal(0, 3.0, rows)
    level = 220.0 + 90.0 * (district == "harbour") + 40.0 * np.cos((hours % 24 - 18) / 24 * 2 * np.pi)
    level = level + np.abs(warmth - 17.0) * 6.0
    level = np.where(hours >= 0.6 * rows, level * 1.33, level)
    observed = np.where(rng.random(rows) < 0.08, np.nan, warmth.round(1))
    return pd.DataFrame(
        {"hour": at, "district": district, "temperature": observed, "load": (level + rng.normal(0, 15, rows)).round(1)}
    )
