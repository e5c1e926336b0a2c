package rpc

import (
	"context"
	"net"
)

// DialForTest is the way to a server under a client that is not ours.
func DialForTest(ctx context.Context, n *Network, caller, name string) (net.Conn, error) {
	return n.dial(ctx, caller, name)
}
