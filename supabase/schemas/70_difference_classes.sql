-- The classes of differences.

create table governance.difference_classes (
  class text primary key,
  name text not null,
  means text not null,
  -- False for what is only listed, carried forward or left out.
  blocks boolean not null
);

comment on table governance.difference_classes is 'Classes of differences, the same as in '
  'shared/governance/reconciliation/classes.ts; a test holds the two equal.';

insert into governance.difference_classes (class, name, means, blocks) values
  ('PAID_NOT_GRANTED', 'Paid, not granted', 'The money came, the tokens did not.',
    true),
  ('GRANTED_NOT_PAID', 'Granted, not paid',
    'Tokens were given for a payment that does not exist, failed, or is unpaid.', true),
  ('DUPLICATE_GRANT', 'Granted twice', 'One payment was credited more than once.',
    true),
  ('DUPLICATE_CHARGE', 'Charged twice', 'One order was paid more than once.',
    true),
  ('AMOUNT_MISMATCH', 'Amount differs', 'The amount paid is not the price of the pack at that time.',
    true),
  ('TOKEN_QTY_MISMATCH', 'Token count differs', 'The tokens granted are not as many as the pack holds.',
    true),
  ('CURRENCY_MISMATCH', 'Currency differs', 'Payment and grant name different currencies.',
    true),
  ('REFUND_NOT_REVERSED', 'Refunded, tokens kept', 'Money went back, the tokens stayed.',
    true),
  ('REFUND_OVER_REVERSED', 'Too much taken back', 'More tokens were taken back than the refund calls for.',
    true),
  ('REFUND_AFTER_SPEND', 'Refunded after use', 'The tokens were used before the refund.',
    true),
  ('DISPUTE_NOT_HELD', 'Disputed, not held', 'A dispute is open and its tokens can still be used.',
    true),
  ('DISPUTE_WON_NOT_RESTORED', 'Dispute won, still held', 'The tokens were not given back.',
    true),
  ('DISPUTE_LOST_NOT_CHARGED', 'Dispute lost, not taken back', 'The money is gone, the tokens are not.',
    true),
  ('SUB_PERIOD_GAP', 'Period not granted', 'An invoiced period has no grant.',
    true),
  ('SUB_PERIOD_OVERLAP', 'Period granted twice', 'An invoiced period was granted more than once.',
    true),
  ('FEE_VARIANCE', 'Fee differs', 'Stripe''s fee does not add up.',
    true),
  ('FX_ROUNDING', 'Rounding of a conversion', 'At most one minor unit.',
    false),
  ('TIMING', 'Timing', 'Too young to be missing; carried forward.',
    false),
  ('ORPHAN', 'Payment unknown', 'A refund, dispute or correction whose payment is not known.',
    true),
  ('UNKNOWN_CATEGORY', 'Unknown kind', 'A kind of row that is not known yet.',
    true),
  ('TEST_MODE_LEAK', 'Test mode', 'A test payment in live data.',
    true);
