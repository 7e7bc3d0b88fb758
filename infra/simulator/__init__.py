"""infra/simulator"""
