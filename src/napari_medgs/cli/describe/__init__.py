"""What files hold, as numbers with names: the records that ``info`` prints and writes."""
