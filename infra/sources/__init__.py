"""infra/sources"""
