-- When the latest crash, offer or install that the store holds was received, in milliseconds since the epoch; 0 for none.
SELECT greatest(
    (SELECT toUnixTimestamp64Milli(max(received_at)) FROM installs),
    (SELECT toUnixTimestamp64Milli(max(received_at)) FROM crashes)
) AS newest_ms
