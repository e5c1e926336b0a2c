package docs

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// standIns take the place of programs that README's commands use and that are not installed: this test under their names. They do what
// the programs do with exactly these arguments, and refuse any others.
var standIns = map[string]func(args []string) int{"nats": natsStandIn, "grpcurl": grpcurlStandIn}

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

// grpcurlStandIn is `grpcurl -plaintext -d @ ADDRESS countersign.signing.v1.SigningRequestService/Create`, the body on standard input.
func grpcurlStandIn(args []string) int {
	const method = "countersign.signing.v1.SigningRequestService/Create"
	if len(args) != 5 || args[0] != "-plaintext" || args[1] != "-d" || args[2] != "@" || args[4] != method {
		return told(fmt.Errorf("grpcurl: not stood in for: %q", args))
	}
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		return told(err)
	}
	request, answer := &signingv1.CreateRequest{}, &signingv1.CreateResponse{}
	if err := protojson.Unmarshal(body, request); err != nil {
		return told(err)
	}
	conn, err := grpc.NewClient(args[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return told(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), standInLimit)
	defer cancel()
	if err := conn.Invoke(ctx, "/"+method, request, answer); err != nil {
		return told(err)
	}
	fmt.Fprintln(os.Stdout, protojson.Format(answer))
	return 0
}
