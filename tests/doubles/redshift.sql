-- What Redshift has and PostgreSQL has not, for databases that stand for Redshift's: types under the numbers that they have
-- there, functions and views. A superuser runs it once in a new database.

set allow_system_table_mods = on;

-- SUPER holds JSON, VARBYTE bytes. A type is given its number while nothing depends on it yet.
create type pg_catalog.super;
create type pg_catalog.varbyte;
create type pg_catalog.geometry;
update pg_type set oid = 4000 where typname = 'super';
update pg_type set oid = 6551 where typname = 'varbyte';
update pg_type set oid = 3000 where typname = 'geometry';
create function pg_catalog.super_in(cstring) returns super language internal immutable strict as 'json_in';
create function pg_catalog.super_out(super) returns cstring language internal immutable strict as 'json_out';
create type pg_catalog.super (input = super_in, output = super_out, like = text);
create function pg_catalog.varbyte_in(cstring) returns varbyte language internal immutable strict as 'byteain';
create function pg_catalog.varbyte_out(varbyte) returns cstring language internal immutable strict as 'byteaout';
create type pg_catalog.varbyte (input = varbyte_in, output = varbyte_out, like = bytea);
create cast (varbyte as bytea) without function as implicit;
create cast (bytea as varbyte) without function as implicit;
create function pg_catalog.geometry_in(cstring) returns geometry language internal immutable strict as 'textin';
create function pg_catalog.geometry_out(geometry) returns cstring language internal immutable strict as 'textout';
create type pg_catalog.geometry (input = geometry_in, output = geometry_out, like = text);

create function pg_catalog.json_parse(varchar) returns super language sql immutable strict as 'select $1::super';
-- No document is the document `null`, and a text has 65,535 bytes at most.
create function pg_catalog.json_serialize(super) returns varchar language plpgsql immutable as
  'begin
     if octet_length($1::varchar) > 65535 then raise exception ''String length exceeds DDL length'' using errcode = ''22001''; end if;
     return coalesce($1::varchar, ''null'');
   end';
create function pg_catalog.json_serialize_to_varbyte(super) returns varbyte language sql immutable as
  'select convert_to(coalesce($1::varchar, ''null''), ''UTF8'')::varbyte';
create function pg_catalog.json_size(super) returns int language sql immutable strict as 'select octet_length($1::varchar)';
create function pg_catalog.to_varbyte(varchar, varchar) returns varbyte language sql immutable strict as
  'select (case lower($2) when ''utf8'' then convert_to($1, ''UTF8'') else decode($1, $2) end)::varbyte';
create function pg_catalog.from_varbyte(varbyte, varchar) returns varchar language sql immutable strict as
  'select (case lower($2) when ''utf8'' then convert_from($1, ''UTF8'') else encode($1, $2) end)::varchar';
create function pg_catalog.st_asewkt(geometry) returns varchar language sql immutable strict as 'select $1::varchar';
create function pg_catalog.st_geomfromtext(varchar) returns geometry language sql immutable strict as 'select $1::geometry';

-- Digests of texts of any kind; the number of bits is one of SHA-2's.
create function pg_catalog.sha2(varchar, int) returns varchar language sql immutable strict as
  'select encode(case $2 when 256 then sha256(convert_to($1, ''UTF8'')) when 512 then sha512(convert_to($1, ''UTF8'')) end, ''hex'')::varchar';

-- The moment at which the statement began, to the second and without a zone.
create function pg_catalog.getdate() returns timestamp language sql stable as
  'select date_trunc(''second'', statement_timestamp() at time zone current_setting(''timezone''))';
create function pg_catalog.datediff(varchar, timestamptz, timestamptz) returns bigint language sql immutable strict as
  'select (extract(epoch from $3 - $2) * case $1 when ''millisecond'' then 1000 when ''second'' then 1 end)::bigint';

-- One row per session.
create view pg_catalog.stv_sessions as
  select backend_start::timestamp(0) as starttime, pid as process, usename::char(50) as user_name, datname::char(50) as db_name
  from pg_stat_activity where backend_type = 'client backend';
grant select on pg_catalog.stv_sessions to public;

-- No boolean becomes a text by a cast.
create function pg_catalog.no_text_of_boolean(boolean) returns varchar language plpgsql immutable strict as
  'begin raise exception ''cannot cast type boolean to character varying'' using errcode = ''42846''; end';
create function pg_catalog.no_plain_text_of_boolean(boolean) returns text language plpgsql immutable strict as
  'begin raise exception ''cannot cast type boolean to character varying'' using errcode = ''42846''; end';
update pg_cast set castfunc = 'no_text_of_boolean'::regproc where castsource = 'boolean'::regtype and casttarget = 'varchar'::regtype;
update pg_cast set castfunc = 'no_plain_text_of_boolean'::regproc where castsource = 'boolean'::regtype and casttarget = 'text'::regtype;
