-- What else the verifier needs: where each log begins, the anchors, and what their targets answered.
CREATE TABLE origins
(
    origin String COMMENT 'Name of the log',
    topic_id FixedString(16) COMMENT 'Kafka id of the input topic, bound by the genesis hash',
    first_offset UInt64 COMMENT 'First input offset that the log covers',
    previous_size UInt64 COMMENT 'Entries of the previous epoch, 0 in epoch 0',
    previous_root FixedString(32) COMMENT 'Root of the previous epoch, zeros in epoch 0',
    genesis_hash FixedString(32) COMMENT 'Stands as previous leaf hash in entry 0'
)
ENGINE = MergeTree
ORDER BY origin
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'The logs, and what their first entry binds';

CREATE TABLE anchors
(
    origin String COMMENT 'Name of the anchor log',
    `index` UInt64 COMMENT 'Position in the anchor log, dense from 0',
    time DateTime64(3, 'UTC') COMMENT 'When the anchor was made, by its clock',
    bodies Array(String) COMMENT 'Checkpoint body of each log, sorted by origin',
    entry String COMMENT 'Leaf data: GLA1, time, count, root over the bodies',
    frontier String COMMENT 'Complete subtrees of the anchor log after this entry',
    note String COMMENT 'Signed checkpoint of the anchor log after this entry'
)
ENGINE = MergeTree
ORDER BY (origin, `index`)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'One entry a minute over the latest checkpoint of every log';

CREATE TABLE receipts
(
    origin String COMMENT 'Name of the anchor log',
    `index` UInt64 COMMENT 'Which anchor',
    target LowCardinality(String) COMMENT 'Where it was written',
    at DateTime64(6, 'UTC') COMMENT 'When the target answered',
    receipt String COMMENT 'Its answer as it came',
    error String COMMENT 'Empty where the target took it'
)
ENGINE = MergeTree
ORDER BY (origin, `index`, target)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'What anchor targets answered';
