"""Six simulated plants: ovens, oxygen, meters, sewage, solar power and water.

See ``benchmarks.further_worlds``.
"""

from __future__ import annotations

import numpy as np

from benchmarks.simulated import World, follow, open_world, plus, ramp, rough, scaled, steady, stuck, zero


def bakery(seed: int) -> World:
    """Ovens that bake batches of three recipes from Monday to Saturday, by night."""
    w = open_world(
        "bakery", ("sensor", "1m"), ("t_c", "gas", "steam"), ("2026-04-13", 28, "Europe/Vienna"), seed
    )
    works = (w.between(2, 11, "012345") > 0) & (w.day != 18)  # closed on May 1
    w.expected.append(("", *w.span(18, 0, 24)))
    recipes = ((230.0, 45, 6.0), (210.0, 22, 9.0), (185.0, 55, 0.0))
    for k in range(4):
        goal, load, steam, row = np.full(w.rows, 30.0), np.zeros(w.rows), np.zeros(w.rows), 0
        while row < w.rows:
            if not works[row]:
                row += 1
                continue
            celsius, minutes, kilograms = recipes[w.rng.choice(3, p=(0.5, 0.3, 0.2))]
            stop = row + int(minutes + w.rng.normal(0, 1.5) + w.rng.uniform(3, 9))
            goal[row:stop], load[row], steam[row : row + 3] = celsius, 1, kilograms
            row = stop
        warmth, temperatures, burner = 40.0, np.empty(w.rows), np.empty(w.rows)
        for i, (to, loaded) in enumerate(zip(goal.tolist(), load.tolist(), strict=True)):
            burner[i] = min(18.0, max(0.0, 0.6 * (to - warmth) + 0.025 * (to - 30)))
            warmth += 0.5 * burner[i] - (warmth - 30) / 80 - 14 * loaded
            temperatures[i] = warmth
        gas = burner * (1 + w.noise(0.03)) + 0.2 + w.noise(0.02)
        steam = np.abs(steam * (1 + w.noise(0.1)) + w.noise(0.03))
        w.series[f"oven {k + 1}"] = {"t_c": temperatures + w.noise(0.6), "gas": gas, "steam": steam}
    w.fault("stuck", "oven 1", w.span(12, 5, 3), "", t_c=stuck)
    w.fault("flame fails", "oven 2", w.span(14, 6, 0.8), "down", gas=zero, t_c=ramp(-75))
    w.fault("no shift", "oven 4", w.span(15, 1.5, 20), "down", **w.like("oven 4", 13, 1.5))
    w.fault("overheats", "oven 1", w.span(17, 5, 1.5), "up", t_c=ramp(60), gas=plus(5))
    w.fault("bakes on a Sunday", "oven 3", w.span(20, 1.5, 20), "up", **w.like("oven 3", 19, 1.5))
    w.fault("steam valve leaks", "oven 2", w.span(21, 12.5, 6), "up", steam=plus(2.5))
    w.fault("spike", "oven 3", w.span(22, 7, rows=2), "up", t_c=plus(190))
    w.fault(
        "burner hunts", "oven 4", w.span(23, 4, 2), "", gas=lambda x: np.abs(x + w.rng.normal(0, 9, len(x)))
    )
    w.fault("gas meter dead", "oven 1", w.span(26, 3, 3), "down", gas=zero)
    return w


def hospital(seed: int) -> World:
    """Oxygen of five buildings, and steam for instruments on working days."""
    channels = ("o2_bar", "o2_flow", "steam_c")
    w = open_world("hospital", ("sensor", "5m"), channels, ("2026-04-06", 35, "Europe/Madrid"), seed)
    holiday = w.day == 25  # May 1
    w.expected.append(("", *w.span(25, 0, 24)))
    second_monday = (w.weekday == 0) & (w.local.day > 7) & (w.local.day <= 14)
    test = second_monday & (w.hour >= 3) & (w.hour < 3.2)  # of the reserve
    set_anew = {1: 7, 3: 26}  # building → day of a new pressure that is normal from then on
    care = w.between(7.5, 16, "01234", 0.2) * ~holiday
    for k in range(5):
        flow = (60 + 15 * k) * (1 + 0.12 * w.peak(10, 4)) + 28 * follow(care, 6)
        flow += w.wander(0.995, 5) + w.noise(1.2)
        setting = np.full(w.rows, 4.9)
        if k in set_anew:
            setting[w.at(set_anew[k], 9) :] += 0.12
            w.expected.append((f"building {k + 1}", *w.span(set_anew[k], 9, 2)))
        bar = setting - 0.0022 * flow - 0.45 * test + w.wander(0.9, 0.01) + w.noise(0.008)
        hot, row = np.zeros(w.rows), w.at(0, 7)
        open_hours = (w.between(7, 20, "01234") + w.between(8, 12, "5")) * ~holiday
        while row < w.rows - 12:
            if open_hours[row]:
                hot[row : row + int(w.rng.integers(4, 6))] = 1
            row += int(w.rng.integers(11, 19)) if open_hours[row] else 1
        steam = follow(62 + 73 * hot, 1.3) + w.noise(0.4) + 6 * follow(open_hours, 12)
        w.series[f"building {k + 1}"] = {"o2_bar": bar, "o2_flow": flow, "steam_c": steam}
    w.fault("leak", "building 1", w.span(15, 8, 60), "up", o2_flow=ramp(55))
    w.fault("pressure falls", "building 2", w.span(16, 13, 0.5), "down", o2_bar=plus(-1.3))
    w.fault("stays hot", "building 3", w.span(17, 21, 5), "up", steam_c=steady(134, w.rng, 0.3))
    w.fault(
        "no sterilizing",
        "building 4",
        w.span(21, 6.8, 14),
        "down",
        **w.like("building 4", 20, 6.8, "steam_c"),
    )
    w.fault("dead sensor", "building 5", w.span(22, 15, 1), "down", o2_flow=zero)
    w.fault("pressure set wrong", "building 1", w.span(24, 10, 12), "up", o2_bar=plus(0.35))
    w.fault(
        "valve hunts", "building 2", w.span(28, 1, 4), "", o2_flow=rough(22, w.rng), o2_bar=rough(0.08, w.rng)
    )
    w.fault("spike", "building 3", w.span(29, 4, rows=2), "up", steam_c=plus(70))
    w.fault(
        "sterilizes by night", "building 5", w.span(31, 1, 4), "up", **w.like("building 5", 30, 9, "steam_c")
    )
    w.fault("stuck", "building 4", w.span(32, 9, 8), "", o2_bar=stuck)
    return w


def meters(seed: int) -> World:
    """Meters that lose readings: homes, shops and street lamps, in coarse steps."""
    channels = ("kwh", "volt", "t_c")
    w = open_world("meters", ("sensor", "1h"), channels, ("2026-02-02", 120, "Europe/Warsaw"), seed)
    noon = 2 + 14 * w.day / w.day.max() + 4 * w.peak(15, 6) + w.wander(0.99, 3)
    dusk, dawn = 16.8 + 4 * w.day / w.day.max(), 7.2 - 3 * w.day / w.day.max()
    closed = np.isin(w.local.strftime("%m-%d"), ("04-05", "04-06", "05-01", "05-03"))
    for day in np.unique(w.day[closed]):
        w.expected.append(("", *w.span(int(day), 0, 24)))
    for k in range(12):
        if k < 6:
            use = 0.25 + 0.5 * w.peak(7, 1.5) + 1.3 * w.peak(20, 2.5) + 0.3 * w.peak(13, 4) * (w.weekday >= 5)
            use = use * np.exp(w.wander(0.3, 0.35))
        elif k < 10:
            use = 0.6 + 6 * w.between(8 + k % 2, 19, "012345") * ~closed * np.exp(w.noise(0.08))
        else:
            use = np.where((w.hour >= np.round(dusk)) | (w.hour < np.round(dawn)), 4.4, 0.0)
        volt = 231 + k % 3 - 2.5 * w.peak(19, 3) + w.wander(0.8, 1.2)
        kwh = np.round(np.maximum(use, 0) * (1 + w.noise(0.03)), 1)
        name = f"{'home' if k < 6 else 'shop' if k < 10 else 'lamp'} {k + 1}"
        box = noon + 0.3 * follow(use, 3) + w.noise(0.4)
        w.series[name] = {"kwh": kwh, "volt": np.round(volt), "t_c": np.round(2 * box) / 2}
    w.fault("stuck", "home 1", w.span(52, 14, 40), "", kwh=stuck)
    w.fault("works by night", "shop 7", w.span(58, 22, 7), "up", kwh=plus(5.8))
    w.fault("stays dark", "lamp 11", w.span(63, 19, 11), "down", kwh=zero)
    w.fault("sentinel", "home 3", w.span(70, 9, 4), "up", t_c=steady(85, w.rng))
    w.fault("low voltage", "shop 8", w.span(76, 12, 6), "down", volt=plus(-28))
    w.fault("lit by day", "lamp 12", w.span(81, 8, 10), "up", kwh=steady(4.4, w.rng))
    w.fault("spike", "home 4", w.span(87, 3, rows=1), "up", kwh=plus(38))
    w.fault("closed on working days", "shop 9", w.span(92, 7, 60), "down", kwh=steady(0.6, w.rng))
    w.fault(
        "loose contact",
        "home 5",
        w.span(99, 10, 15),
        "",
        volt=lambda x: np.round(x - np.abs(w.rng.normal(0, 16, len(x)))),
    )
    w.fault("uses much more", "home 6", w.span(107, 0, 90), "up", kwh=plus(2.6))
    w.lose(0.05, 12)
    return w


def sewage(seed: int) -> World:
    """Pumping stations: day and night, rainy and dry weeks, a tide at two."""
    w = open_world(
        "sewage", ("sensor", "5m"), ("level", "inflow", "kw"), ("2026-03-02", 35, "Europe/London"), seed
    )
    rain = np.zeros(w.rows)
    for _ in range(11):
        first, length = w.rng.integers(0, w.rows), int(w.rng.uniform(15, 90))
        rain[first : first + length] += w.rng.gamma(2, 9)
    runoff, tide = follow(follow(rain, 20), 20), np.sin(np.arange(w.rows) / 12 / 12.42 * 2 * np.pi)
    for k in range(5):
        people = 14 + 2 * k + 12 * w.peak(8 + (w.weekday >= 5), 2) + 10 * w.peak(19.5, 3)
        inflow = people * np.exp(w.wander(0.9, 0.05)) + 1.2 * runoff + 5 * (k > 2) * np.maximum(tide, 0)
        level, pumps, levels, runs = 1.2, False, np.empty(w.rows), np.empty(w.rows)
        for i, comes in enumerate(inflow.tolist()):
            pumps = level > 2.0 or (pumps and level > 0.8)
            level = max(0.3, level + (comes - 62 * pumps) / 160)
            levels[i], runs[i] = level, pumps
        kw = 0.3 + runs * (11 + 0.8 * k - 0.5 * levels) + w.noise(0.03 + 0.12 * runs)
        w.series[f"station {k + 1}"] = {
            "level": levels + w.noise(0.01),
            "inflow": inflow + w.noise(0.5),
            "kw": kw,
        }

    def rises(x: np.ndarray) -> np.ndarray:
        return x[0] + np.linspace(0, 3.5, len(x))

    w.fault("pump fails", "station 1", w.span(15, 7, 3), "", level=rises, kw=steady(0.3, w.rng, 0.03))
    w.fault("stuck", "station 2", w.span(16, 9, 6), "", level=stuck)
    w.fault("sea gate leaks", "station 4", w.span(18, 1, 8), "up", inflow=plus(45))
    w.fault("pump is clogged", "station 3", w.span(20, 6, 14), "up", kw=lambda x: np.where(x > 2, 1.6 * x, x))
    w.fault("dead sensor", "station 5", w.span(23, 12, 2), "down", inflow=zero)
    short = np.arange(60) % 2
    cycles = {"kw": lambda x: 0.3 + 10.2 * short, "level": lambda x: 1.9 + 0.1 * short}
    w.fault("short cycles", "station 1", w.span(25, 14, 5), "", **cycles)
    w.fault("spike", "station 2", w.span(27, 3, rows=2), "up", level=plus(4))
    w.fault(
        "runs dry",
        "station 3",
        w.span(29, 2, 4),
        "",
        level=steady(0.3, w.rng, 0.01),
        kw=steady(14.5, w.rng, 0.5),
    )
    w.fault("discharge by night", "station 5", w.span(32, 2, 2.5), "up", inflow=plus(50))
    return w


def solar(seed: int) -> World:
    """Inverters: clear and cloudy weeks, longer days, night without power."""
    w = open_world(
        "solar", ("sensor", "15m"), ("kw", "dc_v", "module_c"), ("2026-03-30", 60, "Europe/Athens"), seed
    )
    height = np.clip(np.cos((w.hour - 13.4) / 12 * np.pi) + 0.1 + 0.0015 * w.day, 0, None)
    weeks = w.per_day(lambda days: np.repeat(w.rng.uniform(-2.2, 0.6, days // 5 + 1), 5)[:days])
    region = weeks + w.wander(0.97, 0.8)
    air = 14 + 0.12 * w.day + 5 * w.peak(15, 5) + w.wander(0.995, 2)
    for k in range(8):
        clouds = 0.8 / (1 + np.exp(-2 * (region + w.wander(0.5, 0.35))))
        sun = height**1.15 * (1 - clouds)
        kw = np.minimum((20 + 3 * k) * sun * (1 + w.noise(0.01)), 19 + 3 * k)
        module = air + 26 * follow(sun, 2) + w.noise(0.3)
        lit = height > 0.03
        volts = np.where(lit, 640 - 1.6 * (module - 25) + 25 * np.log1p(8 * sun) - 50, 0) + lit * w.noise(2)
        w.series[f"inverter {k + 1}"] = {"kw": np.round(kw, 2), "dc_v": np.round(volts), "module_c": module}
    noon = (11, 4)
    w.fault("strings lost", "inverter 1", w.span(26, 5, 40), "down", kw=scaled(0.45))
    w.fault("trips", "inverter 2", w.span(30, *noon), "", kw=zero, dc_v=plus(90))
    w.fault("stuck", "inverter 3", w.span(34, 15, 30), "", dc_v=stuck)
    w.fault("sensor off", "inverter 4", w.span(37, 9, 5), "down", module_c=steady(-40, w.rng))
    w.fault("power by night", "inverter 5", w.span(40, 22, 6), "up", kw=plus(4))
    w.fault("spike", "inverter 6", w.span(43, 2, rows=1), "up", module_c=plus(45))
    w.fault("clock is wrong", "inverter 7", w.span(47, 0, 24), "", **w.like("inverter 7", 46, 20))
    w.fault("isolation fails", "inverter 8", w.span(51, *noon), "", dc_v=rough(70, w.rng))
    w.fault(
        "gets dirty", "inverter 4", w.span(50, 0, 200), "down", kw=lambda x: x * np.linspace(1, 0.35, len(x))
    )
    return w


def water(seed: int) -> World:
    """Zones of a water network: quiet nights at low pressure, dry weeks."""
    w = open_world("water", ("sensor", "15m"), ("flow", "bar"), ("2026-04-06", 56, "Europe/Amsterdam"), seed)
    late = (w.weekday >= 5) | np.isin(w.day, (0, 21, 38, 49))  # Easter, the King, Ascension, Whitsun
    w.expected += [("", *w.span(day, 0, 24)) for day in (38, 49)]
    dry = w.per_day(lambda days: np.repeat(w.rng.random(days // 7 + 1) < 0.5, 7)[:days])
    night = (w.hour >= 23) | (w.hour < 5)
    for k in range(6):
        homes = 0.1 + 0.9 * w.peak(7.3 + 1.8 * late, 1.5) + 0.55 * w.peak(19, 2.8) + 0.35 * w.peak(13, 4)
        flow = (
            (14 + 5 * k) * (homes * np.exp(w.wander(0.6, 0.06)) + 0.3 * dry * w.peak(21, 1.2))
            + 0.6
            + w.noise(0.15)
        )
        bar = 3.9 + 0.1 * k - 0.7 * follow(night.astype(float), 1.5) - 0.0004 * flow**2 + w.noise(0.02)
        w.series[f"zone {k + 1}"] = {"flow": np.round(flow, 1), "bar": np.round(bar, 2)}
    w.fault("main bursts", "zone 1", w.span(24, 14, 5), "", flow=plus(38), bar=plus(-1.1))
    w.fault("leak", "zone 2", w.span(26, 0, 110), "up", flow=plus(9))
    w.fault("hydrant by night", "zone 3", w.span(32, 2, 2), "up", flow=plus(24))
    w.fault("stuck", "zone 4", w.span(35, 15, 20), "", bar=stuck)
    w.fault("dead sensor", "zone 5", w.span(39, 11, 3), "down", bar=zero)
    w.fault("pressure not lowered", "zone 6", w.span(42, 23, 6), "up", bar=plus(0.7))
    w.fault("meter stands", "zone 4", w.span(44, 8, 7), "down", flow=zero)
    w.fault("valve hunts", "zone 3", w.span(47, 10, 5), "", bar=rough(0.4, w.rng))
    w.fault("zone is cut", "zone 5", w.span(51, 5, 26), "down", flow=scaled(0.35))
    w.fault("spike", "zone 1", w.span(54, 3, rows=1), "down", bar=plus(-2.5))
    return w
