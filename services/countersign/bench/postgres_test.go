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

// startPostgres runs a server of its own with the settings that it has when nobody touches them, synchronous_commit and fsync on.
func startPostgres(b *testing.B, size int) *postgres {
	b.Helper()
	bin := postgresPrograms(b)
	dir, err := os.MkdirTemp("", "countersign-postgres-") //nolint:usetesting // the directory of a test may be entered by its owner alone
	check(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := unprivileged(b, dir)
	data := filepath.Join(dir, "data")
	initialise := exec.CommandContext(b.Context(), filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "bench", "--auth", "trust") //nolint:gosec // the package's own program
	initialise.SysProcAttr, initialise.Dir = as, dir
	if out, err := initialise.CombinedOutput(); err != nil {
		b.Fatalf("initdb: %v: %s", err, out)
	}
	host, port, err := net.SplitHostPort(freeAddress(b))
	check(b, err)
	run := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", host, "-p", port, "-k", dir, "-c", "max_connections=200") //nolint:gosec,noctx // stopped by the signal that ends it well
	run.SysProcAttr, run.Dir = as, dir
	check(b, run.Start())
	b.Cleanup(func() { _ = run.Process.Signal(syscall.SIGINT); _ = run.Wait() })
	config, err := pgxpool.ParseConfig(fmt.Sprintf("postgres://bench@%s/postgres?sslmode=disable", net.JoinHostPort(host, port)))
	check(b, err)
	config.MaxConns = int32(callers[len(callers)-1]) //nolint:gosec // 64
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	check(b, err)
	b.Cleanup(pool.Close)
	await(b, "PostgreSQL", func() bool { return pool.Ping(b.Context()) == nil })
	p := &postgres{pool: pool, state: make([]byte, size)}
	_, _ = rand.Read(p.state) // a record is encrypted or compressed by nobody, but is not all zeros either
	_, err = pool.Exec(b.Context(), `CREATE TABLE link (id bigint PRIMARY KEY, version bigint NOT NULL, state bytea NOT NULL)`)
	check(b, err)
	_, err = pool.Exec(b.Context(), `INSERT INTO link SELECT n, 0, $1 FROM generate_series(0, $2::bigint - 1) AS n`, p.state, standingRows)
	check(b, err)
	return p
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

// postgresPrograms finds where Debian, or the path, has the server.
func postgresPrograms(b *testing.B) string {
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
