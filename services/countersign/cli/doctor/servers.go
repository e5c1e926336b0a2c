package doctor

import (
	"context"
	"crypto/tls"
	"net"
	"net/smtp"
	"time"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/secret"
)

// Skews of the clock: above the larger one services are not ready (decisions 14).
const (
	skewNoted   = 500 * time.Millisecond
	skewRefused = 2 * time.Second
)

// examineRedis looks at the hot state and at what its clock says.
func examineRedis(ctx context.Context, p Patient) []Finding {
	if p.Redis == "" {
		return nil
	}
	rdb, err := hot.Connect(p.Redis, secret.Secret{})
	if err != nil {
		return []Finding{fail("redis", "give --redis HOST:PORT", "%v", err)}
	}
	defer rdb.Close() //nolint:errcheck // nothing was written
	if err := rdb.Ping(ctx).Err(); err != nil {
		return []Finding{fail("redis", startIt+" with --redis; nothing is lost while it is away, but signers wait longer", "%s does not answer: %s", p.Redis, short(err))}
	}
	found := []Finding{ok("redis", "answers at %s", p.Redis)}
	skew, err := clock.Skew(ctx, rdb)
	const next = "set both machines' clocks by NTP"
	switch away := skew.Abs(); {
	case err != nil:
		return append(found, fail("clock", "see Redis's logs", "Redis does not tell its time: %s", short(err)))
	case away > skewRefused:
		return append(found, fail("clock", next, "this machine is %s from Redis's clock; services are not ready above %s", skew.Round(time.Millisecond), skewRefused))
	case away > skewNoted:
		return append(found, warn("clock", next, "this machine is %s from Redis's clock", skew.Round(time.Millisecond)))
	}
	return append(found, ok("clock", "within %s of Redis's", skewNoted))
}

// examineSMTP greets the relay as delivery does, and sends nothing.
func examineSMTP(ctx context.Context, p Patient) []Finding {
	if p.SMTP == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(p.SMTP)
	if err != nil {
		return []Finding{fail("smtp", "give --smtp HOST:PORT", "%q is no address", p.SMTP)}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.SMTP)
	if err != nil {
		return []Finding{fail("smtp", startIt+" with --smtp; messages are tried again until it is back", "cannot connect to %s: %s", p.SMTP, short(err))}
	}
	defer conn.Close()
	if deadline, set := ctx.Deadline(); set {
		_ = conn.SetDeadline(deadline) // a connection just made takes one
	}
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if p.SMTPTLS == "implicit" {
		conn = tls.Client(conn, config)
	}
	client, err := smtp.NewClient(conn, host)
	if err == nil {
		err = client.Hello("localhost")
	}
	if err != nil {
		return []Finding{fail("smtp", "see the relay's logs, or whether --smtp is a mail relay", "%s does not greet as a mail relay does: %s", p.SMTP, short(err))}
	}
	defer client.Quit() //nolint:errcheck // nothing was sent
	return []Finding{examineSMTPTLS(client, p, config)}
}

func examineSMTPTLS(client *smtp.Client, p Patient, config *tls.Config) Finding {
	offered, _ := client.Extension("STARTTLS")
	switch {
	case p.SMTPTLS == "starttls" && !offered:
		return fail("smtp", "switch TLS on at the relay, or give --smtp-tls implicit", "%s does not offer STARTTLS", p.SMTP)
	case p.SMTPTLS == "starttls":
		if err := client.StartTLS(config); err != nil {
			return fail("smtp", "see the relay's certificate", "STARTTLS with %s fails: %s", p.SMTP, short(err))
		}
		return ok("smtp", "%s greets, STARTTLS works", p.SMTP)
	case p.SMTPTLS == "implicit":
		return ok("smtp", "%s greets over TLS", p.SMTP)
	case auth.CheckListener(p.SMTP, false) != nil:
		return warn("smtp", "use --smtp-tls starttls: links travel in these messages", "%s is on another machine and is reached without TLS", p.SMTP)
	default:
		return ok("smtp", "%s greets; no TLS, on this machine", p.SMTP)
	}
}
