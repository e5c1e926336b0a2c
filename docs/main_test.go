// Package docs holds the tests that keep the documentation true: its commands are run, its tables are made from the program.
package docs

import (
	"os"
	"path/filepath"
	"testing"

	"countersign.dev/services/ceremony/pdf"
)

// root is the folder of the repository, seen from here.
const root = ".."

func TestMain(m *testing.M) {
	pdf.RunHelperIfAsked() // documents are read in a copy of this program
	if stand, ok := standIns[filepath.Base(os.Args[0])]; ok {
		os.Exit(stand(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
