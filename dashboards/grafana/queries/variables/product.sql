-- Products that a rollout is known of.
SELECT DISTINCT product FROM rollouts ORDER BY product
