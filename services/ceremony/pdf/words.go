package pdf

import "strings"

// signatureWords are the words of the signature page in one language.
type signatureWords struct {
	title     string
	reference string
	how       string
	signer    string // %d: number of the seat
	foot      string // %s: reference
}

var signaturePageWords = map[string]signatureWords{
	"en": {
		"Signatures", "Reference", "Each person signs electronically in the field that carries their number.", "Signer %d",
		"This page belongs to the document with reference %s. Who signed and when is proved by the digital signatures in this file.",
	},
	"de": {
		"Unterschriften", "Vorgang", "Jede Person unterschreibt elektronisch in dem Feld mit ihrer Nummer.", "Unterzeichner %d",
		"Diese Seite gehört zum Dokument mit dem Zeichen %s. Wer wann unterschrieben hat, belegen die digitalen Signaturen in dieser Datei.",
	},
	"fr": {
		"Signatures", "Référence", "Chaque personne signe électroniquement dans le champ qui porte son numéro.", "Signataire %d",
		"Cette page fait partie du document de référence %s. Les signatures numériques de ce fichier prouvent qui a signé et quand.",
	},
	"es": {
		"Firmas", "Referencia", "Cada persona firma electrónicamente en el campo que lleva su número.", "Firmante %d",
		"Esta página pertenece al documento con referencia %s. Las firmas digitales de este archivo prueban quién firmó y cuándo.",
	},
	"pt": {
		"Assinaturas", "Referência", "Cada pessoa assina eletronicamente no campo que leva o seu número.", "Signatário %d",
		"Esta página pertence ao documento de referência %s. As assinaturas digitais deste arquivo comprovam quem assinou e quando.",
	},
}

// wordsFor returns the words for a BCP 47 tag by its language; English where we have none.
func wordsFor(tag string) signatureWords {
	language, _, _ := strings.Cut(strings.ToLower(tag), "-")
	if w, ok := signaturePageWords[language]; ok {
		return w
	}
	return signaturePageWords["en"]
}
