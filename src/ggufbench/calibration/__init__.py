"""What this machine and its libraries can do: devices, limits, the doctor."""
