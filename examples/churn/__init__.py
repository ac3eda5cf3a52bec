"""Customers who may leave: scored every night, from PostgreSQL and to PostgreSQL."""
