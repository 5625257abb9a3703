-- write the differences
create table `levin_planner`.`p6f0c2a9e_s1_diff_7` as
select w.*, row_number() over () as _levin_sequence
from (
select
  case
    when m.`id` is null then 'removed'
    when k.`id` is null then 'added'
    else 'changed'
  end as _levin_operation,
  case
    when m.`id` is null or k.`id` is null then null
    else concat(case when not (m.`email` <=> k.`email`) then '1' else '0' end
      , case when not (m.`O"Brien's ltv` <=> k.`O"Brien's ltv`) then '1' else '0' end
      , case when not (m.`profile` <=> k.`profile`) then '1' else '0' end)
  end as _levin_changed,
  cast(null as char(16777216)) as _levin_version,
  coalesce(m.`id`, k.`id`) as `id`,
  m.`email`,
  m.`O"Brien's ltv`,
  m.`profile`,
  k.`id` as _levin_previous0, k.`email` as _levin_previous1, k.`O"Brien's ltv` as _levin_previous2, k.`profile` as _levin_previous3
from (
  select * from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m
  where m.`id` is not null
) as m
left join `levin_planner`.`p6f0c2a9e_s1_snapshot` as k on m.`id` = k.`id`
where (m.`id` is null
  or k.`id` is null
  or not (m.`email` <=> k.`email`)
  or not (m.`O"Brien's ltv` <=> k.`O"Brien's ltv`)
  or not (m.`profile` <=> k.`profile`)
)
union all
select
  case
    when m.`id` is null then 'removed'
    when k.`id` is null then 'added'
    else 'changed'
  end as _levin_operation,
  case
    when m.`id` is null or k.`id` is null then null
    else concat(case when not (m.`email` <=> k.`email`) then '1' else '0' end
      , case when not (m.`O"Brien's ltv` <=> k.`O"Brien's ltv`) then '1' else '0' end
      , case when not (m.`profile` <=> k.`profile`) then '1' else '0' end)
  end as _levin_changed,
  cast(null as char(16777216)) as _levin_version,
  coalesce(m.`id`, k.`id`) as `id`,
  m.`email`,
  m.`O"Brien's ltv`,
  m.`profile`,
  k.`id` as _levin_previous0, k.`email` as _levin_previous1, k.`O"Brien's ltv` as _levin_previous2, k.`profile` as _levin_previous3
from `levin_planner`.`p6f0c2a9e_s1_snapshot` as k
left join (
  select * from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m
  where m.`id` is not null
) as m on m.`id` = k.`id`
where m.`id` is null and(m.`id` is null
  or k.`id` is null
  or not (m.`email` <=> k.`email`)
  or not (m.`O"Brien's ltv` <=> k.`O"Brien's ltv`)
  or not (m.`profile` <=> k.`profile`)
)
) as w
union all
select 'queried', cast(count(*) as char), cast(coalesce(sum(case when m.`id` is null then 1 else 0 end), 0) as char),
  null,
  null,
  null,
  null,
null, null, null, null, 0
from (
  select r.`id`, r.`email`, r.`O"Brien's ltv`, r.`profile`
  from (
select * from customers -- all of them;
  ) as r
) as m;

-- make room for longer words
alter table `levin_planner`.`p6f0c2a9e_s1_diff_7` modify _levin_operation varchar(30) character set utf8mb4 collate utf8mb4_nopad_bin;

-- park rows that were refused too often
update `levin_planner`.`p6f0c2a9e_s1_diff_7` as f
set _levin_operation = concat('parked_', f._levin_operation)
where exists (select 1 from `levin_planner`.`p6f0c2a9e_s1_rejections` as r where r._levin_parked and r.`id` = f.`id` and r._levin_operation = f._levin_operation and r._levin_fingerprint = sha2(concat('4f2a', case when f._levin_operation = 'removed' then concat('removed') else concat(f._levin_operation, concat('', coalesce(concat(concat(cast(length(concat(cast(f.`email` as char), ' ', hex(f.`email`))) as char), ':'), concat(cast(f.`email` as char), ' ', hex(f.`email`))), '-'), coalesce(concat(concat(cast(length(concat(cast(f.`O"Brien's ltv` as char), ' ', hex(f.`O"Brien's ltv`))) as char), ':'), concat(cast(f.`O"Brien's ltv` as char), ' ', hex(f.`O"Brien's ltv`))), '-'), coalesce(concat(concat(cast(length(concat(cast(f.`profile` as char), ' ', hex(f.`profile`))) as char), ':'), concat(cast(f.`profile` as char), ' ', hex(f.`profile`))), '-'))) end), 256));

-- count (returns rows)
select q.queried, q.null_keys, 0 as duplicate_key_rows, r.added, r.changed, r.removed, s.known, r.parked_added, r.parked_changed, r.parked_removed,
  s.known - r.gone + r.new_keys as expected,
  (select count(*) from (select 1 as one from `levin_planner`.`p6f0c2a9e_s1_diff_7` group by `id` having count(*) > 1) as r) as own_duplicates,
  0 as longest_key
from (
  select cast(_levin_changed as signed) as queried, cast(_levin_version as signed) as null_keys
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
  where _levin_operation = 'queried'
) as q
cross join (
  select
    cast(coalesce(sum(case when _levin_operation in ('added', 'parked_added') then 1 else 0 end), 0) as signed) as added,
    cast(coalesce(sum(case when _levin_operation in ('added', 'parked_added') and _levin_changed is null then 1 else 0 end), 0) as signed) as new_keys,
    cast(coalesce(sum(case when _levin_operation in ('changed', 'parked_changed') then 1 else 0 end), 0) as signed) as changed,
    cast(coalesce(sum(case when _levin_operation in ('removed', 'parked_removed') and _levin_changed is null then 1 else 0 end), 0) as signed) as gone,
    cast(coalesce(sum(case when _levin_operation in ('removed', 'parked_removed') then 1 else 0 end), 0) as signed) as removed,
    cast(coalesce(sum(case when _levin_operation = 'parked_added' then 1 else 0 end), 0) as signed) as parked_added,
    cast(coalesce(sum(case when _levin_operation = 'parked_changed' then 1 else 0 end), 0) as signed) as parked_changed,
    cast(coalesce(sum(case when _levin_operation = 'parked_removed' then 1 else 0 end), 0) as signed) as parked_removed
  from `levin_planner`.`p6f0c2a9e_s1_diff_7`
) as r
cross join (select count(*) as known from `levin_planner`.`p6f0c2a9e_s1_snapshot` as k) as s;

-- forget the count
delete from `levin_planner`.`p6f0c2a9e_s1_diff_7` where _levin_operation = 'queried';

