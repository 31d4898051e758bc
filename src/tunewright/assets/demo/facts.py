"""What the demo's sentences are made of: names, items, cities and ways of saying it, each listed twice.

The lists of `TRAIN` and `HELDOUT` share no entry, and no word of a name, item or city either, so that a held-out row can
only be answered by reading it. The held-out words are common ones, the rare ones are trained on: inside JSON's quotes a
word is spelled with other tokens than in the sentence, and a model of this size misspells words that it has seldom read
(Brussels and Milan, misspelled in trials, were moved to the training lists, so the figure does not speak for rare words).
Patterns hold `{name}`, `{quantity}`, `{item}` and `{city}` once each.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION = "Order as JSON: name, item, quantity, city."
"""The system prompt of every row, trained and held out, before and after."""

NUMBER_WORDS = {
    2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten",
    11: "eleven", 12: "twelve",
}
"""Quantities that a sentence may spell out; the record holds the number."""


@dataclass(frozen=True)
class Facts:
    """The word lists and sentence patterns of one side of the split."""

    first_names: tuple[str, ...]
    surnames: tuple[str, ...]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    cities: tuple[str, ...]
    patterns: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    """The comma-separated entries of `text`."""
    return tuple(entry.strip() for entry in text.split(","))


def _lines(text: str) -> tuple[str, ...]:
    """The non-empty lines of `text`."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


TRAIN = Facts(
    first_names=_words(
        "Anna, Boris, Carla, Dmitri, Elena, Farid, Greta, Hassan, Ines, Jonas, Keiko, Liam, Marta, Nils, Olga, "
        "Pablo, Rosa, Stefan, Tara, Umar, Vera, Walter, Ximena, Yusuf, Zoe, Amara, Bruno, Chloe, Derek, Esther, "
        "Fiona, Gustav, Helga, Ivan, Jasmine, Kofi, Lucia, Mehmet, Nora, Oscar, Priya, Quentin, Ruth, Samir, Tomas, "
        "Ursula, Viktor, Wendy, Yara, Aisha, Agnes, Cecilia, Diego, Hanna, Frank, Gloria, Henrik, Isaac, Caspar, "
        "Kevin, Leila, Magnus, Nadia, Otto, Renata, Rajesh, Simone, Theo, Valentina, Wilhelm, Emeka, Florian, "
        "Ibrahim, Joanna, Klaus, Lorenzo, Miriam, Nikolai, Ophelia, Pedro, Sven, Thandi, Ulrich, Vivian, Wanda, "
        "Yolanda, Zachary, Conrad, Dalia, Bettina, Cyrus, Dorothea, Edgar, Felicity, Gareth, Hilde, Imogen, Jorge, "
        "Kirsten, Luther, Mireille, Noor, Orlando, Petra, Ramon, Sigrid, Tobias, Ulla, Vincent, Xavier"),
    surnames=_words(
        "Keller, Moreau, Okafor, Santos, Lindgren, Novak, Petrov, Haddad, Tanaka, Fischer, Rossi, Kowalski, Nguyen, "
        "Andersen, Schmidt, Dubois, Yilmaz, Popescu, Bakker, Costa, Ivanova, Larsen, Mendez, Sharma, Weber, Horvat, "
        "Clarke, Silva, Byrne, Jansen, Romano, Farouk, Sato, Vogel, Brandt, Castillo, Dempsey, Eriksen, Fontaine, "
        "Gruber, Hashimoto, Kaplan, Lombardi, Mbeki, Osborne, Quiroga, Reyes, Thornton, Abbott, Bergman, Chowdhury, "
        "Drummond, Escobar, Ferreira, Gallagher, Hoffmann, Iqbal, Johansson, Kimura, Leclerc, Marchetti, Nakamura, "
        "Ortega, Pacheco, Quinlan, Rahman, Sokolov, Takeda, Ueda, Vasquez, Whitfield, Zimmermann"),
    adjectives=_words(
        "red, wooden, small, leather, blue, cotton, steel, large, striped, glass, brass, yellow, folding, ceramic, "
        "woollen, plastic, round, white, garden, antique, heavy, paper, orange, velvet, travel, kitchen, rubber, "
        "copper, square, winter, office, thin, woven, bamboo, tiny, purple, iron, marble, digital, narrow, portable, "
        "spotted, crimson, linen, pewter, electric, quilted, waterproof, wicker, curved, denim, miniature, enamel, "
        "turquoise, second-hand, padded, tin, vintage, walnut, fireproof, beige, knitted, oval, chrome, handmade, "
        "wireless, tartan, ivory, cordless, spare, oak, polished, crystal, adjustable, canvas, scented, engraved, "
        "foam, silent, rustic, big, cheap, fresh, clean, used, broken, extra, long, dark, simple"),
    nouns=_words(
        "lamps, notebooks, kettles, candles, blankets, umbrellas, mirrors, backpacks, spoons, towels, guitars, "
        "baskets, hammers, pillows, scarves, helmets, teapots, ladders, curtains, stamps, violins, buckets, gloves, "
        "posters, batteries, tents, keyboards, belts, shelves, magnets, socks, wallets, brushes, ropes, jackets, "
        "bowls, radios, vases, envelopes, drums, carpets, screwdrivers, tickets, headphones, cushions, forks, "
        "printers, sandals, jars, dictionaries, whistles, sofas, kites, trumpets, aprons, lanterns, drills, saucers, "
        "globes, anchors, flutes, quilts, compasses, bracelets, calculators, hoses, skateboards, binoculars, mugs, "
        "telescopes, stools, napkins, wrenches, tripods, goggles, rakes, trays, rulers, doormats, easels, sponges, "
        "corkscrews, mittens, harps, padlocks, chisels, hammocks, pitchers, thermometers, stencils, buttons, "
        "ribbons, wheelbarrows, suitcases, slippers, toasters, microphones, crayons, barrels, hinges, cradles, "
        "bookmarks, trophies, whisks, thimbles, coasters, sleds, paintings"),
    cities=_words(
        "Oslo, Lima, Cairo, Vienna, Nairobi, Lisbon, Osaka, Prague, Denver, Mumbai, Santiago, Helsinki, Athens, "
        "Seoul, Geneva, Havana, Jakarta, Warsaw, Dakar, Tunis, Zagreb, Hamburg, Manila, Bogota, Riga, Naples, Leeds, "
        "Houston, Kyoto, Porto, Antwerp, Tbilisi, Calgary, Seville, Accra, Bergen, Kolkata, Montreal, Austin, Hanoi, "
        "Zurich, Marseille, Cusco, Adelaide, Krakow, Lagos, Tallinn, Portland, Ankara, Rabat, Baku, Cardiff, "
        "Dresden, Edmonton, Fresno, Ghent, Harare, Izmir, Johannesburg, Kampala, Lyon, Memphis, Nagoya, Odense, "
        "Perth, Quito, Rotterdam, Sarajevo, Tampere, Utrecht, Valencia, Windhoek, Yerevan, Bilbao, Caracas, Durban, "
        "Galway, Hobart, Leipzig, Malmo, Nantes, Orlando, Palermo, Split, Tulsa, Vilnius, Winnipeg, Bremen, Cordoba, "
        "Dhaka, Ashford, Brookville, Bridgeport, Brighton, Bruges, Brisbane, Braga, Milton, Millfield, Minsk, "
        "Midland, Belgrade, Belfast, Bern, Bath, Basel, Baltimore, Salem, Stanford, Stuttgart, Stavanger, Stirling, "
        "Dallas, Delft, Derby, Dover, Amman, Amherst, Rostock, Reno, Richmond, Parma, Pasadena, Patras, Paterson, "
        "Lexington, Lincoln, Linz, Louisville, Tokat, Toledo, Topeka, Toulouse, Torino, Madras, Madison, Malaga, "
        "Maputo, Chester, Chelsea, Charleston, Chicoutimi, Boise, Bolton, Bonn, Bordeaux, Munster, Murcia, Dundee, "
        "Dunedin, Sydenham, Syracuse, Moorhead, Moss, Mostar, Sheffield, Seaford, Seaton, Bari, Barnsley, Barton, "
        "Barrow, Milan, Brussels"),
    patterns=_lines("""
        {name} from {city} ordered {quantity} {item}.
        {name} would like {quantity} {item} delivered to {city}.
        Please send {quantity} {item} to {name} in {city}.
        In {city}, {name} bought {quantity} {item}.
        {quantity} {item} were ordered by {name}, who lives in {city}.
        An order came in from {city}: {name} wants {quantity} {item}.
        {name} needs {quantity} {item}. Ship them to {city}.
        We have to ship {quantity} {item} to {city} for {name}.
        Our customer {name} in {city} asked for {quantity} {item}.
        Hello, my name is {name} and I want {quantity} {item}. I live in {city}.
        From {city}, {name} is asking for {quantity} {item}.
        The {quantity} {item} go to {city}; the buyer is {name}.
        Could you post {quantity} {item} to {city}? The customer is {name}.
        Yesterday {name} called from {city} to buy {quantity} {item}.
        {city} office: {name} requests {quantity} {item}.
        For {name}: {quantity} {item}, to be sent to {city}.
        I am {name}. Send {quantity} {item} to my house in {city}, please.
        {name} has just paid for {quantity} {item} to be shipped to {city}.
        A parcel with {quantity} {item} leaves for {city} today, addressed to {name}.
        Customer {name}, city {city}, wants {quantity} {item}.
        Someone named {name} in {city} wants to buy {quantity} {item}.
        There is an order for {quantity} {item} from {name} of {city}.
        {name} placed an order of {quantity} {item} and will pick it up in {city}.
        On Monday the shop in {city} sold {quantity} {item} to {name}.
        Pack {quantity} {item} for {name} and send the box to {city}.
        Deliver to {city}: {quantity} {item} for {name}.
        Last week {quantity} {item} were sold to {name} in {city}.
        {name}, a teacher in {city}, is buying {quantity} {item} for the school.
        Hi, this is {name} calling from {city}. I would like to order {quantity} {item}.
        {name} wrote to us: please mail {quantity} {item} to {city}.
        To {city} go {quantity} {item}, paid for by {name}.
        After a long search, {name} found {quantity} {item} and had them sent to {city}.
        The buyer {name} chose {quantity} {item}, and the address is in {city}.
        It was {name} from {city} who ordered the {quantity} {item}.
        Put {quantity} {item} on the truck to {city}; {name} is waiting for them.
        {name} moved to {city} and needs {quantity} {item} for the new house.
        New request: {quantity} {item}. Name: {name}. Place: {city}.
        We sold {quantity} {item} this morning. The buyer was {name} and the destination is {city}.
        Because the store in {city} was closed, {name} ordered {quantity} {item} online.
        {name} wants us to bring {quantity} {item} to {city} before Friday.
        Reserve {quantity} {item} for {name}, who will come from {city} on Tuesday.
        My friend {name} in {city} is looking for {quantity} {item}.
        Thanks to {name}, {quantity} {item} are now on their way to {city}.
        Ms or Mr {name} of {city} has purchased {quantity} {item}.
        {quantity} {item} for {city}, please. The name is {name}.
        An email from {name} asks for {quantity} {item} to be delivered in {city}.
        The warehouse in {city} must hand {quantity} {item} to {name}.
        {name} runs a hotel in {city} and just ordered {quantity} {item}.
        While visiting {city}, {name} decided to buy {quantity} {item}.
        Could {name} get {quantity} {item} by next week? The city is {city}.
        A student called {name} picked {quantity} {item} and gave an address in {city}.
        Note for the driver: {city}, {quantity} {item}, ask for {name}.
        Every month {name} receives {quantity} {item} in {city}.
        The invoice is for {quantity} {item}. Send it to {name} in {city}.
        At our {city} branch, {quantity} {item} are ready for {name}.
        {name} changed the order to {quantity} {item}; the address in {city} stays the same.
        Good morning! I need {quantity} {item} in {city}. Regards, {name}
        Since moving, {name} has bought {quantity} {item} from us, all sent to {city}.
        Tell {name} that the {quantity} {item} will arrive in {city} tomorrow.
        In the name of {name}, please book {quantity} {item} for pick-up in {city}.
        The people in {city} are waiting for {quantity} {item} that {name} ordered.
        {name} said: I will take {quantity} {item}, and my city is {city}.
        Order received. Item: {item}. Count: {quantity}. Client: {name}. Town: {city}.
        We owe {name} {quantity} {item}; they should be sent to {city}.
    """),
)

HELDOUT = Facts(
    first_names=_words(
        "Peter, Sarah, Michael, Emma, David, Laura, Daniel, Maria, Thomas, Alice, James, Sophie, Robert, Julia, "
        "Martin, Helen, George, Linda, Paul, Susan, Charles, Diana, Simon, Rachel, Andrew"),
    surnames=_words(
        "Smith, Brown, Wilson, Taylor, Baker, Cooper, Carter, Turner, Parker, Collins, Murphy, Garcia, Watson, "
        "Hughes, Morris"),
    adjectives=_words(
        "green, black, silver, metal, wool, old, new, plain, pink, golden, bright, soft, silk, painted, summer"),
    nouns=_words(
        "chairs, tables, books, bottles, shirts, boxes, cups, clocks, cameras, bicycles, pencils, hats, coats, "
        "boots, plates, knives, phones, bags, rugs, beds, desks, bells, dolls, puzzles, watches"),
    cities=_words(
        "London, Paris, Berlin, Madrid, Rome, Tokyo, Chicago, Boston, Toronto, Sydney, Munich, Dublin, Amsterdam, "
        "Moscow, Delhi, Seattle, Washington, Barcelona, Vancouver, Stockholm"),
    patterns=_lines("""
        {name} is hoping to receive {quantity} {item} at home in {city}.
        A customer in {city}, {name}, has requested {quantity} {item}.
        Kindly arrange for {quantity} {item} to reach {name} at the {city} address.
        Today we got a call: {name} wants to purchase {quantity} {item} for a shop in {city}.
        {quantity} {item} should be brought to {city}, where {name} will collect them.
        Good evening, {name} here. Can I have {quantity} {item} sent over to {city}?
        The order of {name} is {quantity} {item}, and it must be delivered in {city}.
        Next stop is {city}: drop off {quantity} {item} for {name}.
        Having seen our catalogue, {name} of {city} picked out {quantity} {item}.
        For the wedding in {city}, {name} is going to need {quantity} {item}.
        Somebody in {city} bought {quantity} {item}, and that somebody is {name}.
        Set aside {quantity} {item}; {name} is travelling from {city} to fetch them.
        {name} owns a cafe in {city} and wishes to buy {quantity} {item}.
        A box holding {quantity} {item} was mailed to {name}, a resident of {city}.
        Dear team, kindly dispatch {quantity} {item} to {city}. Yours, {name}
        What {name} asked us to deliver in {city} was {quantity} {item}.
        Before the holidays, {name} had {quantity} {item} shipped over to {city}.
        Write down that {name} takes {quantity} {item} and lives in {city}.
        As soon as possible, {city} should get {quantity} {item}; charge them to {name}.
        We promised {quantity} {item} to {name}, so get them to {city} soon.
    """),
)
