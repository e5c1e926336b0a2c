package hot

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	// go-redis: the client that Redis itself keeps; speaks Cluster, Sentinel and TLS, and has a pool that fails fast.
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"countersign.dev/pkg/secret"
)

// The client's own time-outs. They bound what has no context of its own; a Redis that is far or slow is no cache.
const (
	dialTimeout = 500 * time.Millisecond
	ioTimeout   = 500 * time.Millisecond
)

// ErrAddress means that an address cannot be understood.
var ErrAddress = errors.New("hot: a Redis address is host:port, several of them (a Cluster), or a URL redis[s]://user@host:port/db?sentinel=name")

// Connect returns a client of the Redis at address without waiting for it: host:port; host:port,host:port for a Cluster; or
// a URL, rediss:// for TLS, with ?sentinel=NAME where the hosts are Sentinels that watch NAME. A password is given apart,
// as addresses are logged. Its calls fail within a second where Redis is gone, and observe their contexts.
func Connect(address string, password secret.Secret) (redis.UniversalClient, error) {
	o, err := parse(address)
	if err != nil {
		return nil, err
	}
	o.Password = password.Reveal()
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, ioTimeout, ioTimeout, ioTimeout
	o.ContextTimeoutEnabled = true
	o.MaxRetries, o.DialerRetries = 1, 1 // once more on a connection that went stale, not longer: the record is there
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled} // of Redis's paid product
	return redis.NewUniversalClient(o), nil
}

func parse(address string) (*redis.UniversalOptions, error) {
	o := &redis.UniversalOptions{}
	hosts := address
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil {
			return nil, ErrAddress // without err, which repeats the address with a password in it
		}
		if _, has := u.User.Password(); has {
			return nil, fmt.Errorf("%w; its password does not belong into the address", ErrAddress)
		}
		if hosts, err = fromURL(o, u); err != nil {
			return nil, err
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(strings.TrimSpace(host))
		if err != nil || name == "" {
			return nil, fmt.Errorf("%w, not %q", ErrAddress, host)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("%w, not %q", ErrAddress, host)
		}
		o.Addrs = append(o.Addrs, net.JoinHostPort(name, port))
	}
	return o, nil
}

// fromURL sets what only a URL can say and returns its hosts.
func fromURL(o *redis.UniversalOptions, u *url.URL) (string, error) {
	switch u.Scheme {
	case "redis":
	case "rediss":
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return "", fmt.Errorf("%w, not %s://", ErrAddress, u.Scheme)
	}
	o.Username = u.User.Username()
	if db := strings.Trim(u.Path, "/"); db != "" {
		n, err := strconv.ParseUint(db, 10, 8)
		if err != nil {
			return "", fmt.Errorf("%w; the database is a number, not %q", ErrAddress, db)
		}
		o.DB = int(n)
	}
	for key, values := range u.Query() {
		if key != "sentinel" || len(values) != 1 {
			return "", fmt.Errorf("%w; %q is not known", ErrAddress, key)
		}
		o.MasterName = values[0]
	}
	return u.Host, nil
}
