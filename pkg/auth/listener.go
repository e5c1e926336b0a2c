package auth

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// CheckListener refuses to open address without authentication, unless only this machine can reach it: a loopback IP,
// localhost, or a Unix socket. An address without a host, such as ":8080", is every interface, so it is refused.
// authConfigured says whether callers on it must show a key or a certificate.
func CheckListener(address string, authConfigured bool) error {
	if authConfigured || strings.HasPrefix(address, "unix:") {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("auth: %q is no address to listen on, give host:port: %w", address, err)
	}
	if strings.EqualFold(host, "localhost") {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	return fmt.Errorf("auth: refusing to listen on %q without authentication: others can reach it; listen on 127.0.0.1, or give API keys", address)
}
