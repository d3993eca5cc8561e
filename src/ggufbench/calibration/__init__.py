"""Calibration of this machine and its libraries: devices, limits, the doctor."""
