package docs

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// standIns take the place of programs that README's commands use and that are not installed: this test under their names. They do what
// the programs do with exactly these arguments, and refuse any others.
var standIns = map[string]func(args []string) int{"nats": natsStandIn}

const standInLimit = time.Minute

func told(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// natsStandIn is `nats pub SUBJECT BODY`, at NATS_URL.
func natsStandIn(args []string) int {
	if len(args) != 3 || args[0] != "pub" {
		return told(fmt.Errorf("nats: not stood in for: %q", args))
	}
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		return told(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return told(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), standInLimit)
	defer cancel()
	_, err = js.Publish(ctx, args[1], []byte(args[2]))
	return told(err)
}
