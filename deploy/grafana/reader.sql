-- A role for Grafana's PostgreSQL data source. It can read only the columns that
-- deploy/grafana/tollwire-business.json uses: no called numbers, no tokens. Run this file as the
-- owner of the tables, and again after each upgrade that changes the schema: psql --file
-- deploy/grafana/reader.sql postgresql://…/tollwire then give it a password: ALTER ROLE
-- tollwire_grafana PASSWORD '…' (in psql: \password tollwire_grafana).
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'tollwire_grafana') THEN
        CREATE ROLE tollwire_grafana LOGIN CONNECTION LIMIT 10;
    END IF;
END
$$;
-- Limits for queries, so that a dashboard over years does not slow down uploads.
ALTER ROLE tollwire_grafana SET default_transaction_read_only = on;
ALTER ROLE tollwire_grafana SET statement_timeout = '60s';

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM tollwire_grafana;
GRANT USAGE ON SCHEMA public TO tollwire_grafana;
GRANT SELECT (id, name, currency) ON tenants TO tollwire_grafana;
GRANT SELECT (version_id, destination) ON rate_versions TO tollwire_grafana;
GRANT SELECT (cdr_id) ON cdr_reversals TO tollwire_grafana;
GRANT SELECT (
    id, tenant_id, started_at_ns, direction, disposition, status, duration_seconds, bill_seconds,
    cost_units, cost_fraction_e8, rate_version_id
) ON cdrs TO tollwire_grafana;
