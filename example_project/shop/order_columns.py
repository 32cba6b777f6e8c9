"""The columns of a CSV file of orders."""

COLUMNS = ["number", "ordered_on", "customer", "email", "country", "product", "quantity", "unit_price"]
