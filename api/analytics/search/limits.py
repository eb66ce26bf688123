"""How many matches a search reads and counts. Read as `limits.FEW`, since tests lower them."""

# With words the total is counted to the next full COUNT_STEP past the page, at most as far as this: to know more takes
# longer than to find the page.
COUNT_STEP, COUNT_LIMIT = 1_000, 10_000
# As many matches as this are read at once, with how close each is.
FEW = 500
