"""Twelve simulated worlds of other physics, with known faults.

They share no process with the worlds of ``benchmarks.worlds``, and were written without a look at what a
detector does. Improve a detector on those that are not in ``HELD_OUT``, and run the others only to check
the result:

    python -m benchmarks.worlds --further --detector standard
    python -m benchmarks.worlds --held-out --detector standard
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.further_plants import bakery, hospital, meters, sewage, solar, water
from benchmarks.simulated import World, follow, open_world, plus, ramp, scaled, stuck, world_of, zero

#: Worlds that no choice of the product may rest on.
HELD_OUT = ("cdn", "hospital", "meters", "resolvers", "shares", "water")

BANK_HOLIDAYS = ("2026-01-01", "2026-04-03", "2026-04-06", "2026-05-04", "2026-05-25")  # London


def cdn(seed: int) -> World:
    """Video network: evenings, weekends, release nights, monthly updates."""
    channels = ("gbps", "hit_share", "errors")
    w = open_world("cdn", ("network", "1h"), channels, ("2026-01-12", 120, "Europe/Paris"), seed)
    dates = w.local.strftime("%Y-%m-%d")
    releases = np.isin(dates, ("2026-02-13", "2026-03-27", "2026-04-24")) & (w.hour >= 20)
    for first in np.flatnonzero(np.diff(releases.astype(int)) == 1) + 1:
        w.expected.append(("", first, first + 5))
    second_tuesday = (w.weekday == 1) & (w.local.day > 7) & (w.local.day <= 14)
    updates = (second_tuesday & (w.hour >= 19)).astype(float)
    series = 1 + 0.25 * ((w.day // 7) % 2) * (w.weekday == 4)  # a new episode every second Friday
    for k in range(8):
        evening = w.peak(21, 2.6) * series + 0.45 * w.peak(14, 3.5) * (1 + 0.6 * (w.weekday >= 5))
        load = (0.12 + evening + 0.9 * releases + 0.4 * updates) * np.exp(
            w.wander(0.85, 0.07) + w.wander(0.995, 0.08)
        )
        gbps = 30 * 1.45**k * load * np.exp(w.noise(0.03))
        hits = 0.945 - 0.02 * load + 0.006 * updates + w.wander(0.7, 0.004)
        errors = w.rng.poisson(gbps * 0.05 * np.exp(w.wander(0.5, 0.3)))
        w.series[f"pop {k + 1}"] = {
            "gbps": gbps,
            "hit_share": np.minimum(hits, 0.99),
            "errors": errors.astype(float),
        }
    w.fault("cache purged", "pop 1", w.span(50, 16, 7), "down", hit_share=plus(-0.3))
    w.fault("silence", "pop 2", w.span(55, 18, 4), "down", gbps=zero, errors=zero)
    w.fault("origin fails", "pop 3", w.span(61, 20, 3), "up", errors=lambda x: 60 * x + 300)
    w.fault("flood by night", "pop 4", w.span(66, 2, 5), "up", gbps=plus(120))
    w.fault("half of the links", "pop 5", w.span(72, 9, 70), "down", gbps=scaled(0.4))
    w.fault("stuck", "pop 6", w.span(80, 8, 16), "", gbps=stuck)
    w.fault("no evening", "pop 7", w.span(89, 18, 6), "down", gbps=w.like("pop 7", 89, 7)["gbps"])
    w.fault("cache fills up", "pop 8", w.span(95, 0, 120), "down", hit_share=ramp(-0.22))
    w.fault("spike", "pop 1", w.span(108, 11, rows=1), "up", errors=plus(900))
    w.fault("errors not counted", "pop 8", w.span(112, 10, 40), "down", errors=zero)
    return w


def crypto(seed: int) -> World:
    """Pairs round the clock: funding every eight hours, calm weekends, a peg."""
    w = open_world("crypto", ("stock", "5m"), ("close", "volume"), ("2026-03-02", 42, "UTC"), seed)
    funding = ((w.hour % 8) < 0.25).astype(float)
    market = w.noise(7e-4)
    for k in range(5):
        mood = np.exp(w.wander(0.998, 0.35) - 0.35 * (w.weekday >= 5)) * (1 + 0.35 * w.peak(15, 3))
        steps = mood * (market + 9e-4 * w.rng.standard_t(5, w.rows)) * (1 + 0.5 * funding)
        close = 30.0 * 6**k * np.exp(np.cumsum(steps))
        if k == 0:
            close = 1 + w.wander(0.9, 4e-4)
        volume = 2e4 / (k + 1) * mood * (1 + 1.6 * funding) * np.exp(w.wander(0.6, 0.45))
        w.series[("PEG", "LTC", "SOL", "ETH", "BTC")[k]] = {
            "close": np.round(close, 4),
            "volume": np.round(volume, 2),
        }
    w.fault("bad tick", "BTC", w.span(18, 11, rows=1), "up", close=scaled(1.09))
    w.fault("stuck quote", "ETH", w.span(19, 13, 2), "", close=stuck)
    w.fault("volume burst", "LTC", w.span(21, 4, 0.5), "up", volume=scaled(25))
    w.fault("peg is lost", "PEG", w.span(23, 2, 5), "down", close=plus(-0.03))
    crash = np.r_[np.linspace(1, 0.86, 4), np.linspace(0.88, 1, 6)]
    w.fault("flash crash", "SOL", w.span(25, 17, rows=10), "", close=lambda x: x * crash, volume=scaled(9))
    w.fault("no trades", "BTC", w.span(28, 15, 1), "down", volume=zero)
    w.fault("wash trades", "LTC", w.span(31, 20, 7), "up", volume=scaled(8))
    tossed = 1 + 0.02 * w.rng.normal(size=9)
    w.fault("quotes jump", "ETH", w.span(35, 10, rows=9), "", close=lambda x: x * tossed)
    w.fault("other currency", "SOL", w.span(38, 9, 1.5), "down", close=scaled(0.86))
    return w


def mail(seed: int) -> World:
    """Mail relays: newsletters on two days, hourly reports, a nightly digest."""
    channels = ("queue", "delivered", "rejected")
    w = open_world("mail", ("network", "1m"), channels, ("2026-05-04", 28, "America/Toronto"), seed)
    office = w.between(8, 18, "01234", 0.3)
    holiday = w.day == 14  # Victoria Day
    w.expected.append(("", *w.span(14, 0, 24)))
    minute = np.arange(w.rows) % 60
    for k in range(4):
        calm = np.exp(w.wander(0.98, 0.3))
        rate = (0.6 + 14 * (k + 1) * follow(office * ~holiday * (1 - 0.3 * w.peak(12.5, 0.8)), 40)) * calm
        bulk = np.where(minute < 3, 30.0, 0.0)
        digest = w.between(23.5, 23.7) * 220
        late = w.per_day(lambda days: w.rng.uniform(0, 0.3, days))
        letters = ((w.hour >= 9 + late) & (w.hour < 9.3 + late) & np.isin(w.weekday, (1, 3))) * 420.0
        arrived, waiting = w.rng.poisson(rate + bulk + digest + letters), 0
        queue, delivered = np.empty(w.rows), np.empty(w.rows)
        for i, (come, most) in enumerate(
            zip(arrived.tolist(), w.rng.poisson(260, w.rows).tolist(), strict=True)
        ):
            waiting += come
            delivered[i] = min(waiting - (waiting > 3), most)
            waiting -= delivered[i]
            queue[i] = waiting
        rejected = w.rng.poisson(0.3 + 0.12 * rate + 0.6 * (w.rng.random(w.rows) < 0.01)).astype(float)
        queue += w.rng.poisson(2 + 0.4 * rate)
        w.series[f"relay {k + 1}"] = {"queue": queue, "delivered": delivered, "rejected": rejected}
    w.fault("nothing leaves", "relay 1", w.span(12, 11, 2), "", queue=ramp(1500), delivered=zero)
    w.fault("rejects", "relay 2", w.span(15, 14, 1), "up", rejected=plus(70))
    w.fault(
        "no newsletter",
        "relay 3",
        w.span(17, 8.9, 0.9),
        "down",
        **w.like("relay 3", 16, 8.9, "queue", "delivered"),
    )
    w.fault("outbreak by night", "relay 4", w.span(18, 3, 1.5), "up", delivered=plus(90), queue=plus(45))
    w.fault(
        "no digest",
        "relay 1",
        w.span(20, 23.4, 0.4),
        "down",
        **w.like("relay 1", 20, 22.4, "queue", "delivered"),
    )
    w.fault("stuck", "relay 2", w.span(21, 10, 2.5), "", queue=stuck)
    w.fault("backlog", "relay 3", w.span(22, 11, 5), "up", queue=plus(260))
    w.fault("silence", "relay 4", w.span(24, 13, 0.7), "down", queue=zero, delivered=zero, rejected=zero)
    w.fault("spike", "relay 2", w.span(26, 5, rows=2), "up", rejected=plus(45))
    return w


def payments(seed: int) -> World:
    """Payment gateways: pay days, a slow nightly settlement, summer time, Easter."""
    channels = ("payments", "declined", "ms")
    w = open_world("payments", ("network", "5m"), channels, ("2026-02-02", 63, "Europe/London"), seed)
    payday = (w.local.day == 25).astype(float)
    off = np.isin(w.local.strftime("%Y-%m-%d"), BANK_HOLIDAYS)
    w.expected.append(("", *w.span(60, 0, 72)))
    shape = 0.04 + w.peak(12.5, 3) + 0.8 * w.peak(18.5, 2.2) + 0.25 * (w.weekday >= 5) * w.peak(15, 4)
    for k in range(5):
        rate = 70 * 1.6**k * shape * (1 + 0.7 * payday - 0.3 * off) * np.exp(w.wander(0.97, 0.08))
        paid = w.rng.poisson(rate)
        declined = w.rng.binomial(paid, np.clip(0.035 + 0.02 * payday + w.wander(0.9, 0.006), 0.005, 0.2))
        begin = w.per_day(lambda days: w.rng.normal(1.3, 0.1, days))
        settles = (w.hour >= begin) & (w.hour < begin + 0.6) & (w.weekday < 5) & ~off
        ms = (
            160
            * (1 + 2.2 * settles)
            * np.exp(w.wander(0.6, 0.09) + w.noise(0.05))
            * (1 + 0.03 * w.rng.pareto(3, w.rows))
        )
        w.series[f"gateway {k + 1}"] = {
            "payments": paid.astype(float),
            "declined": declined.astype(float),
            "ms": np.round(ms),
        }
    w.fault("silence", "gateway 1", w.span(26, 12, 0.7), "down", payments=zero, declined=zero)
    w.fault(
        "issuer declines", "gateway 2", w.span(29, 17, 0.6), "up", declined=lambda x: np.round(12 * x + 5)
    )
    w.fault("slow", "gateway 3", w.span(32, 14, 1), "up", ms=scaled(4))
    w.fault("no settlement", "gateway 4", w.span(36, 0.8, 1.8), "down", **w.like("gateway 4", 36, 3, "ms"))
    w.fault("cards are tested", "gateway 5", w.span(39, 3, 2), "up", payments=plus(260), declined=plus(240))
    w.fault("half of the cards", "gateway 1", w.span(43, 11, 3), "down", payments=lambda x: np.round(0.4 * x))
    w.fault("settles too long", "gateway 2", w.span(45, 2.2, 3.5), "up", ms=scaled(3))
    w.fault("charged twice", "gateway 3", w.span(47, 16, 3), "up", payments=scaled(2))
    w.fault(
        "declines creep",
        "gateway 5",
        w.span(53, 9, 9),
        "up",
        declined=lambda x: x + np.round(np.linspace(0, 70, len(x))),
    )
    w.fault("stuck", "gateway 4", w.span(57, 10, 3), "", ms=stuck)
    return w


def resolvers(seed: int) -> World:
    """Name servers: a scan each Sunday, a job on the first of each month."""
    channels = ("queries", "nxdomain", "ms")
    w = open_world("resolvers", ("network", "15m"), channels, ("2026-02-02", 75, "America/Sao_Paulo"), seed)
    scan = w.between(4, 5.5, "6")
    monthly = ((w.local.day == 1) & (w.hour >= 2) & (w.hour < 3.5)).astype(float)
    office = w.between(8, 18.5, "01234", 0.25)
    holiday = np.isin(w.local.strftime("%Y-%m-%d"), ("2026-02-16", "2026-02-17", "2026-04-03"))
    w.expected.append(("", *w.span(60, 0, 24)))
    for k in range(6):
        base = (
            40
            * 2**k
            * (0.12 + follow(office * ~holiday, 3) + 0.3 * w.peak(21, 2))
            * np.exp(w.wander(0.8, 0.09))
        )
        queries = w.rng.poisson(base * (1 + monthly) + 60 * 2**k * scan)
        missing = w.rng.poisson(0.05 * base + 40 * 2**k * scan)
        ms = 14 * (1 + 1.5 * monthly) * np.exp(w.wander(0.7, 0.12)) * (1 + 0.05 * w.rng.pareto(3, w.rows))
        w.series[f"ns {k + 1}"] = {
            "queries": queries.astype(float),
            "nxdomain": missing.astype(float),
            "ms": np.round(ms, 1),
        }
    w.fault("flood", "ns 1", w.span(31, 10, 0.75), "up", queries=scaled(14))
    w.fault("random names", "ns 2", w.span(35, 15, 2), "up", nxdomain=plus(500), queries=plus(500))
    w.fault("silence", "ns 3", w.span(38, 11, 1), "down", queries=zero, nxdomain=zero)
    w.fault("no scan", "ns 4", w.span(41, 4, 1.5), "down", **w.like("ns 4", 41, 2, "queries", "nxdomain"))
    w.fault("upstream slow", "ns 5", w.span(45, 9, 3), "up", ms=scaled(4))
    w.fault(
        "scan on a Wednesday",
        "ns 6",
        w.span(51, 4, 1.5),
        "up",
        **w.like("ns 6", 48, 4, "queries", "nxdomain"),
    )
    w.fault("not counted", "ns 6", w.span(56, 8, 6), "down", nxdomain=zero)
    w.fault(
        "half moved away",
        "ns 5",
        w.span(63, 7, 60),
        "down",
        queries=lambda x: np.round(0.35 * x),
        nxdomain=lambda x: np.round(0.35 * x),
    )
    w.fault("beacon by night", "ns 2", w.span(67, 23, 6), "up", queries=plus(90))
    w.fault("slows down", "ns 1", w.span(70, 0, 60), "up", ms=ramp(45))
    return w


def shares(seed: int) -> World:
    """London bars: auctions at the close, calm noons, summer time, results."""
    dates = [
        one for one in pd.bdate_range("2026-01-02", "2026-05-29") if f"{one:%Y-%m-%d}" not in BANK_HOLIDAYS
    ]
    bars = [
        pd.date_range(one + pd.Timedelta("8h"), periods=34, freq="15min", tz="Europe/London").tz_convert(
            "UTC"
        )
        for one in dates
    ]
    index = bars[0].append(bars[1:]).tz_localize(None)
    w = world_of("shares", ("stock", "15m"), ("close", "volume"), (index, "Europe/London"), seed)
    w.options = {"calendar": "XLON"}
    opens = np.diff(w.day, prepend=-1) > 0
    smile = 0.6 + 1.3 * np.exp(-(w.hour - 8) / 0.6) + 0.5 * w.peak(14.6, 0.7)
    auction = 1 + 5 * (w.hour == 16.25)
    market = 6e-4 * np.sqrt(smile) * w.noise() + 0.004 * opens * w.noise()
    for k in range(8):
        regime = np.exp(w.wander(0.999, 0.3))
        steps = market + regime * (
            9e-4 * np.sqrt(smile) * w.rng.standard_t(5, w.rows) + 0.005 * opens * w.noise()
        )
        volume = 4e3 * (k + 1) * smile * auction * np.exp(w.wander(0.6, 0.35) + 0.4 * np.log(regime))
        first = w.at(89 + 4 * k, 8)  # results of the year
        steps[first] += w.rng.choice((-0.06, 0.06))
        volume[first : first + 34] *= 2.5
        w.expected.append((f"SH{k + 1}", first, first + 34))
        w.series[f"SH{k + 1}"] = {
            "close": np.round(120 * (k + 2) * np.exp(np.cumsum(steps)), 1),
            "volume": np.ceil(volume),
        }
    w.fault("bad tick", "SH1", w.span(66, 11, rows=1), "down", close=scaled(0.9))
    w.fault("stuck quote", "SH2", w.span(69, 10, rows=14), "", close=stuck)
    w.fault("volume burst", "SH3", w.span(76, 13, rows=3), "up", volume=scaled(14))
    w.fault("pounds for pence", "SH4", w.span(84, 12, rows=2), "down", close=scaled(0.01))
    w.fault("no volume", "SH5", w.span(101, 10, rows=8), "down", volume=lambda x: np.ones_like(x))
    tossed = np.exp(np.cumsum(w.rng.choice((-0.025, 0.025), 12)))
    w.fault("volatility burst", "SH6", w.span(103, 9, rows=12), "", close=lambda x: x * tossed)
    w.fault("volume of another share", "SH7", w.span(126, 8, rows=34), "up", volume=scaled(8))
    split = w.at(132, 8)
    w.fault("split, not adjusted", "SH8", (split, split + 1), "down", close=scaled(0.5))
    w.series["SH8"]["close"][split + 1 :] *= 0.5
    return w


FURTHER_WORLDS = (
    bakery, cdn, crypto, hospital, mail, meters, payments, resolvers, sewage, shares, solar, water,
)  # fmt: skip
