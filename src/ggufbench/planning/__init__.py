"""Scenarios, and the plan: which model runs under which scenario."""
