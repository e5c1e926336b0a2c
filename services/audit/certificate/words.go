package certificate

import "strings"

// words are all the words of a certificate in one language.
type words struct {
	language  string
	titles    [2]string // of a completed request, of any other
	outcomes  [4]string
	intro     [4]string // by outcome
	reference string
	request   string
	sender    string
	created   string
	ended     [4]string
	issued    string

	documents string
	pages     string // %d
	onePage   string
	presented string
	signed    string
	unsigned  string

	signers    string
	signedAt   string
	declinedAt string
	notSigned  string
	verified   string
	noCheck    string
	levels     [5]string
	level      string // %d
	opened     string
	consented  string
	signature  string
	kinds      map[string]string
	address    string
	device     string
	erased     string

	timeline string
	when     string
	what     string
	who      string
	leaf     string
	noEvents string

	check      string
	head       string
	log        string
	checkpoint string // %d
	steps      [2]string
	trail      string // the third step, by hand
	verify     string // the third step, by one command; %s = evidence file
	honest     string
	page       string // %d %d
}

// title names the certificate: nothing was completed unless everybody signed.
func (w words) title(o Outcome) string {
	if o == Completed {
		return w.titles[0]
	}
	return w.titles[1]
}

var english = words{
	language: "en",
	titles:   [2]string{"Certificate of completion", "Record of the request"},
	outcomes: [4]string{"Completed", "Declined", "Cancelled", "Expired"},
	intro: [4]string{
		"Everybody who was asked to sign has signed. This certificate sums up what the audit trail of the request proves.",
		"A signer declined to sign. This certificate sums up what the audit trail of the request proves.",
		"The request was cancelled before everybody had signed. This certificate sums up what its audit trail proves.",
		"The request expired before everybody had signed. This certificate sums up what its audit trail proves.",
	},
	reference: "Reference", request: "Request", sender: "Sender", created: "Created",
	ended: [4]string{"Completed", "Declined", "Cancelled", "Expired"}, issued: "Issued",
	documents: "Documents", pages: "%d pages", onePage: "1 page", presented: "Presented, SHA-256", signed: "Signed, SHA-256", unsigned: "was not signed",
	signers: "Signers", signedAt: "Signed", declinedAt: "Declined", notSigned: "Has not signed",
	verified: "Verified by", noCheck: "possession of the link alone",
	levels: [5]string{"possession of the link", "confirmed mailbox", "one-time code", "sign-in or passkey", "records or in person"},
	level:  "level %d", opened: "Opened", consented: "Agreed to sign electronically", signature: "Signature",
	kinds: map[string]string{
		"SES": "Electronic signature (SES, eIDAS Art. 3(10))",
		"AES": "Advanced electronic signature (AES, eIDAS Art. 26)",
		"QES": "Qualified electronic signature (QES, eIDAS Art. 3(12))",
	},
	address: "Network address", device: "Device", erased: "Personal data was erased on request; every proof below still holds.",
	timeline: "Timeline", when: "Time (UTC)", what: "What happened", who: "Who", leaf: "Leaf hash", noEvents: "No events.",
	check: "How to check this certificate", head: "Head of the chain", log: "Log", checkpoint: "covered by the signed checkpoint of size %d",
	steps: [2]string{
		"Open the signed file in a PDF reader: it shows the digital signatures and whether anything was changed since.",
		"Compute the SHA-256 of your files and compare it with the values above.",
	},
	trail: "Ask the sender for the trail, one entry a line. The SHA-256 of a zero byte and the line is the entry’s leaf hash; every entry names the hash of the one " +
		"before it, from the first to the head of the chain.",
	verify: "Run “countersign verify %s”. Without a network it recomputes every hash of the timeline up to the head of the chain, and checks the log’s own signatures.",
	honest: "The hashes show that neither a document nor an entry of the trail was changed afterwards. The trail is a tamper-evident log; it is not a " +
		"qualified electronic ledger. All times are Coordinated Universal Time (UTC).",
	page: "Page %d of %d",
}

var german = words{
	language: "de",
	titles:   [2]string{"Abschlussbescheinigung", "Vorgangsbescheinigung"},
	outcomes: [4]string{"Abgeschlossen", "Abgelehnt", "Abgebrochen", "Abgelaufen"},
	intro: [4]string{
		"Alle, die um ihre Unterschrift gebeten wurden, haben unterschrieben. Diese Bescheinigung fasst zusammen, was das Protokoll des Vorgangs belegt.",
		"Eine Person hat die Unterschrift abgelehnt. Diese Bescheinigung fasst zusammen, was das Protokoll des Vorgangs belegt.",
		"Der Vorgang wurde abgebrochen, bevor alle unterschrieben hatten. Diese Bescheinigung fasst zusammen, was sein Protokoll belegt.",
		"Der Vorgang ist abgelaufen, bevor alle unterschrieben hatten. Diese Bescheinigung fasst zusammen, was sein Protokoll belegt.",
	},
	reference: "Zeichen", request: "Vorgang", sender: "Absender", created: "Angelegt",
	ended: [4]string{"Abgeschlossen", "Abgelehnt", "Abgebrochen", "Abgelaufen"}, issued: "Ausgestellt",
	documents: "Dokumente", pages: "%d Seiten", onePage: "1 Seite", presented: "Vorgelegt, SHA-256", signed: "Signiert, SHA-256", unsigned: "wurde nicht signiert",
	signers: "Unterzeichner", signedAt: "Unterschrieben", declinedAt: "Abgelehnt", notSigned: "Hat nicht unterschrieben",
	verified: "Geprüft durch", noCheck: "Besitz des Links allein",
	levels: [5]string{"Besitz des Links", "bestätigtes Postfach", "Einmalcode", "Anmeldung oder Passkey", "Akten oder persönlich"},
	level:  "Stufe %d", opened: "Geöffnet", consented: "Elektronischer Form zugestimmt", signature: "Unterschrift",
	kinds: map[string]string{
		"SES": "Elektronische Signatur (EES, eIDAS Art. 3 Nr. 10)",
		"AES": "Fortgeschrittene elektronische Signatur (FES, eIDAS Art. 26)",
		"QES": "Qualifizierte elektronische Signatur (QES, eIDAS Art. 3 Nr. 12)",
	},
	address: "Netzadresse", device: "Gerät", erased: "Personenbezogene Daten wurden auf Verlangen gelöscht; alle Nachweise gelten weiter.",
	timeline: "Verlauf", when: "Zeit (UTC)", what: "Was geschah", who: "Wer", leaf: "Blatt-Hash", noEvents: "Keine Ereignisse.",
	check: "So lässt sich diese Bescheinigung prüfen", head: "Kopf der Kette", log: "Log", checkpoint: "gedeckt durch den signierten Prüfpunkt der Größe %d",
	steps: [2]string{
		"Öffnen Sie die signierte Datei in einem PDF-Leser: Er zeigt die digitalen Signaturen und ob seitdem etwas geändert wurde.",
		"Berechnen Sie den SHA-256-Wert Ihrer Dateien und vergleichen Sie ihn mit den Werten oben.",
	},
	trail: "Lassen Sie sich vom Absender das Protokoll geben, ein Eintrag je Zeile. Der SHA-256-Wert eines Nullbytes und der Zeile ist der Blatt-Hash des Eintrags; " +
		"jeder Eintrag nennt den Hash des vorigen, vom ersten bis zum Kopf der Kette.",
	verify: "Rufen Sie „countersign verify %s“ auf. Der Befehl rechnet ohne Netz jeden Hash des Verlaufs bis zum Kopf der Kette nach und prüft die Signaturen des Logs.",
	honest: "Die Hashwerte zeigen, dass weder ein Dokument noch ein Eintrag des Protokolls nachträglich geändert wurde. Das Protokoll ist ein " +
		"manipulationssicheres Log, aber kein qualifiziertes elektronisches Journal. Alle Zeiten sind koordinierte Weltzeit (UTC).",
	page: "Seite %d von %d",
}

func wordsFor(tag string) words {
	if language, _, _ := strings.Cut(strings.ToLower(tag), "-"); language == "de" {
		return german
	}
	return english
}
