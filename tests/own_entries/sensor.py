"""A sensor of one's own, with two bands."""

from cropray.core.sensors import SENSORS, Band, Sensor

RED, NEAR = (Band(name, "reflectance", 1e-4, 0.0, resolution_m=10) for name in ("T1", "T2"))
TOY_SAT = Sensor("toy-sat", (RED, NEAR))
SENSORS.add(TOY_SAT)
