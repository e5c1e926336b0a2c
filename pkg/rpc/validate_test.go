package rpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
)

// contract is a small one with rules, as buf would compile it.
const contract = `
name: "validated.proto" package: "validated" syntax: "proto3" dependency: "buf/validate/validate.proto"
message_type {
  name: "Ask"
  field { name: "signers" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".validated.Signer" json_name: "signers"
          options { [buf.validate.field] { repeated { max_items: 2 } } } }
  field { name: "request_id" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING json_name: "requestId"
          options { [buf.validate.field] { string { max_len: 8 } } } }
  field { name: "metadata" number: 3 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".validated.Ask.MetadataEntry" json_name: "metadata"
          options { [buf.validate.field] { map { values { string { max_len: 3 } } } } } }
  nested_type { name: "MetadataEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING json_name: "key" }
    field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING json_name: "value" } }
}
message_type {
  name: "Signer"
  field { name: "mail_address" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING json_name: "mailAddress"
          options { [buf.validate.field] { string { email: true } } } }
}`

func askType(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	var fd descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(contract), &fd); err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(&fd, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().ByName("Ask")
}

func TestInvalidMessages(t *testing.T) {
	t.Parallel()
	ask := askType(t)
	read := func(json string) proto.Message {
		m := dynamicpb.NewMessage(ask)
		if err := protojson.Unmarshal([]byte(json), m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	conn := validating(t, ask)
	for name, tt := range map[string]struct {
		json  string
		paths []string
	}{
		"valid":                    {`{"signers":[{"mailAddress":"ada@acme.test"}]}`, nil},
		"one field, by its name":   {`{"signers":[{"mailAddress":"ada@acme.test"},{"mailAddress":"secret nonsense"}]}`, []string{"signers[1].mail_address"}},
		"every wrong field":        {`{"signers":[{"mailAddress":"x"},{"mailAddress":"ada@acme.test"},{"mailAddress":"y"}],"requestId":"secret toolong"}`, []string{"signers", "signers[0].mail_address", "signers[2].mail_address", "request_id"}},
		"a key of a map is hidden": {`{"metadata":{"secret":"long one"}}`, []string{"metadata[*]"}},
	} {
		t.Run(name, func(t *testing.T) {
			unary := conn.Invoke(t.Context(), "/validated.Service/Ask", read(tt.json), dynamicpb.NewMessage(ask))
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, "/validated.Service/Upload")
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.SendMsg(read(tt.json))
			_ = stream.CloseSend()
			streamed := stream.RecvMsg(dynamicpb.NewMessage(ask))
			for kind, err := range map[string]error{"unary": unary, "stream": streamed} {
				if len(tt.paths) == 0 {
					if err != nil {
						t.Errorf("%s: %v", kind, err)
					}
					continue
				}
				f := failure.From(err)
				if status.Code(err) != codes.InvalidArgument || f == nil || !errors.Is(f, failure.RequestInvalid) {
					t.Fatalf("%s: got %v", kind, err)
				}
				var got []string
				for _, field := range f.Fields {
					got = append(got, field.Path)
					if field.Problem == "" || strings.Contains(field.Problem, "secret") {
						t.Errorf("%s: %s is told as %q", kind, field.Path, field.Problem)
					}
				}
				for _, want := range tt.paths {
					if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+want+" ") {
						t.Errorf("%s: %s is not named in %v", kind, want, got)
					}
				}
				if len(got) != len(tt.paths) || strings.Contains(f.Error(), "secret") {
					t.Errorf("%s: got %v", kind, f)
				}
			}
		})
	}
}

// validating is a connection to a server whose handlers must never see an invalid message.
func validating(t *testing.T, ask protoreflect.MessageDescriptor) *grpc.ClientConn {
	t.Helper()
	server, err := rpc.NewServer(rpc.Options{Auth: auth.InProcess()})
	if err != nil {
		t.Fatal(err)
	}
	echo := func(context.Context, any) (any, error) { return dynamicpb.NewMessage(ask), nil }
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "validated.Service", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Ask", Handler: func(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			in := dynamicpb.NewMessage(ask)
			if err := dec(in); err != nil {
				return nil, err
			}
			return chain(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/validated.Service/Ask"}, echo)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Upload", ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
			for {
				if err := ss.RecvMsg(dynamicpb.NewMessage(ask)); errors.Is(err, io.EOF) {
					return ss.SendMsg(dynamicpb.NewMessage(ask))
				} else if err != nil {
					return err
				}
			}
		}}},
	}, nil)
	n := rpc.NewNetwork()
	lis, err := n.Listen("server")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	conn, err := rpc.Dial("server", rpc.DialOptions{Self: "client", Network: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn
}

func TestReadsOf(t *testing.T) {
	t.Parallel()
	var fd descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(`name: "r.proto" package: "r" syntax: "proto3" message_type { name: "M" }
service { name: "S"
  method { name: "Get" input_type: ".r.M" output_type: ".r.M" options { idempotency_level: NO_SIDE_EFFECTS } }
  method { name: "Put" input_type: ".r.M" output_type: ".r.M" options { idempotency_level: IDEMPOTENT } }
  method { name: "Do" input_type: ".r.M" output_type: ".r.M" } }`), &fd); err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(&fd, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := rpc.ReadsOf(file.Services().Get(0)); len(got) != 1 || got[0] != "/r.S/Get" {
		t.Errorf("got %v", got)
	}
}
