package pdf

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// What service and helper say to each other: a JSON head and a body of bytes, each led by its length (4 bytes, big endian).

const (
	maxHead = 1 << 20
	maxBody = 64 << 20
)

type request struct {
	Op      string         `json:"op"` // warm, inspect, prepare, draw, text
	Page    int            `json:"page,omitempty"`
	Width   int            `json:"width,omitempty"`
	Options PrepareOptions `json:"options,omitzero"`
}

type response struct {
	Refused Reason `json:"refused,omitempty"` // the document's fault
	Error   string `json:"error,omitempty"`   // ours or the caller's
	Kind    string `json:"kind,omitempty"`    // of Error: options, page or empty
	Retire  bool   `json:"retire,omitempty"`  // the helper asks to be replaced
	Same    bool   `json:"same,omitempty"`    // the body would be the request's
	Report  Report `json:"report,omitzero"`
	Boxes   []Box  `json:"boxes,omitempty"`
	Image   Image  `json:"image,omitzero"`
	body    []byte
}

var errFrame = errors.New("pdf: malformed message")

func writeMessage(w io.Writer, head any, body []byte) error {
	h, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("pdf: write message: %w", err)
	}
	if len(h) > maxHead || len(body) > maxBody {
		return errFrame
	}
	for _, part := range [][]byte{h, body} {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(part)))
		if _, err := w.Write(length[:]); err != nil {
			return fmt.Errorf("pdf: write message: %w", err)
		}
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("pdf: write message: %w", err)
		}
	}
	return nil
}

// readMessage returns io.EOF unwrapped when the other side has closed between messages.
func readMessage(r io.Reader, head any) ([]byte, error) {
	h, err := readPart(r, maxHead)
	if err != nil {
		return nil, err
	}
	body, err := readPart(r, maxBody)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	if err := json.Unmarshal(h, head); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return body, nil
}

func readPart(r io.Reader, limit int) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(length[:]))
	if n > limit {
		return nil, errFrame
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("pdf: read message: %w", err)
	}
	return b, nil
}
