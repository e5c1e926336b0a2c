package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	// pgx is the driver that a Go team would use: prepared statements in the binary protocol, and a pool.
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgres is what a team would pick instead of a stream: one row for each link, changed durably if it is as it was read.
type postgres struct {
	pool  *pgxpool.Pool
	state []byte
}

// standingRows is how many links the table holds: one for each call of a round, and again.
const standingRows = 20_000

// startPostgres runs a server of its own with the settings that it has when nobody touches them, synchronous_commit and fsync on; with
// standbys, one of which has to have synced before a change is acknowledged, as one follower of a stream has to.
func startPostgres(b *testing.B, size, standbys int) *postgres {
	b.Helper()
	dir, err := os.MkdirTemp("", "countersign-postgres-") //nolint:usetesting // the directory of a test may be entered by its owner alone
	check(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	programs := postgresPrograms{b: b, bin: postgresDir(b), dir: dir, as: unprivileged(b, dir)}
	programs.run("initdb", "--pgdata", "primary", "--username", "bench", "--auth", "trust")
	host, port := programs.serve("primary")
	config, err := pgxpool.ParseConfig(fmt.Sprintf("postgres://bench@%s/postgres?sslmode=disable", net.JoinHostPort(host, port)))
	check(b, err)
	config.MaxConns = int32(callers[len(callers)-1]) //nolint:gosec // 64
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	check(b, err)
	b.Cleanup(pool.Close)
	await(b, "PostgreSQL", func() bool { return pool.Ping(b.Context()) == nil })
	for n := range standbys {
		name := fmt.Sprint("standby", n)
		programs.run("pg_basebackup", "--dbname", fmt.Sprintf("host=%s port=%s user=bench application_name=%s", host, port, name),
			"--pgdata", name, "--write-recovery-conf", "--checkpoint", "fast")
		programs.serve(name)
	}
	if standbys > 0 {
		_, err = pool.Exec(b.Context(), `ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'`)
		check(b, err)
		_, err = pool.Exec(b.Context(), `SELECT pg_reload_conf()`)
		check(b, err)
		await(b, "PostgreSQL's standbys", func() bool {
			var following int
			err := pool.QueryRow(b.Context(), `SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'`).Scan(&following)
			return err == nil && following == standbys
		})
	}
	p := &postgres{pool: pool, state: make([]byte, size)}
	_, _ = rand.Read(p.state) // a record is encrypted or compressed by nobody, but is not all zeros either
	_, err = pool.Exec(b.Context(), `CREATE TABLE link (id bigint PRIMARY KEY, version bigint NOT NULL, state bytea NOT NULL)`)
	check(b, err)
	_, err = pool.Exec(b.Context(), `INSERT INTO link SELECT n, 0, $1 FROM generate_series(0, $2::bigint - 1) AS n`, p.state, standingRows)
	check(b, err)
	return p
}

// postgresPrograms runs the package's programs in one directory.
type postgresPrograms struct {
	b        *testing.B
	bin, dir string
	as       *syscall.SysProcAttr
}

// run waits for a program's end.
func (p postgresPrograms) run(name string, args ...string) {
	p.b.Helper()
	command := exec.CommandContext(p.b.Context(), filepath.Join(p.bin, name), args...) //nolint:gosec // the package's own program
	command.SysProcAttr, command.Dir = p.as, p.dir
	if out, err := command.CombinedOutput(); err != nil {
		p.b.Fatalf("%s: %v: %s", name, err, out)
	}
}

// serve runs a server on some data until the benchmark ends, and returns where.
func (p postgresPrograms) serve(data string) (host, port string) {
	p.b.Helper()
	host, port, err := net.SplitHostPort(freeAddress(p.b))
	check(p.b, err)
	command := exec.Command(filepath.Join(p.bin, "postgres"), "-D", data, "-h", host, "-p", port, "-k", p.dir, "-c", "max_connections=200") //nolint:gosec,noctx // stopped by the signal that ends it well
	command.SysProcAttr, command.Dir = p.as, p.dir
	check(p.b, command.Start())
	p.b.Cleanup(func() { _ = command.Process.Signal(syscall.SIGINT); _ = command.Wait() })
	return host, port
}

// update reads a link and changes it, durably, if nobody changed it in between: what a redemption does.
func (p *postgres) update(ctx context.Context, call int) error {
	id, version := call%standingRows, 0
	var state []byte
	if err := p.pool.QueryRow(ctx, `SELECT version, state FROM link WHERE id = $1`, id).Scan(&version, &state); err != nil {
		return err
	}
	tag, err := p.pool.Exec(ctx, `UPDATE link SET version = version + 1, state = $3 WHERE id = $1 AND version = $2`, id, version, p.state)
	if err == nil && tag.RowsAffected() != 1 {
		return errors.New("another was first")
	}
	return err
}

// postgresDir finds where Debian, or the path, has the programs.
func postgresDir(b *testing.B) string {
	b.Helper()
	if found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); err == nil && len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	found, err := exec.LookPath("initdb")
	if err != nil {
		b.Fatal("PostgreSQL is not installed: make bench PEERS=1 installs it")
	}
	return filepath.Dir(found)
}

// unprivileged lets the server run as somebody who is not root, which it refuses to be, and gives him the directory.
func unprivileged(b *testing.B, dir string) *syscall.SysProcAttr {
	b.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	check(b, err)
	uid, err := strconv.Atoi(u.Uid)
	check(b, err)
	gid, err := strconv.Atoi(u.Gid)
	check(b, err)
	check(b, os.Chown(dir, uid, gid))
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}} //nolint:gosec // ids
}
