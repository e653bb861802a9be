"""What others use, built from their published rules, so that Cordon's table compares like with like.

One peer a file; `registry` lists them. README.md says of each where its rule comes from and what it cannot see.
"""
