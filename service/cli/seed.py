"""Made-up people with believable names, for trying the service out."""

import random
import secrets
import string
import unicodedata
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from models.base import now
from service import normal

BATCH = 5_000
FIRST = (
    "Ada Adaeze Aiko Aisha Alejandro Amara Amina Anders Andrea Ángela Anika Antonio Asha Astrid Ayşe Beatriz "
    "Benjamin Björn Camille Carlos Carmen Chidi Chiara Chloé Claire Daniel Daniela David Deniz Diego Dmitri "
    "Elena Eleni Elif Emeka Emil Emma Eun-ji Fatima Felix Fiona Freja Gabriel Giulia Grace Hana Hannah Haruto "
    "Hélène Hugo Ibrahim Ines Ingrid Isabel Ivan Jamal Jan Jana Javier Jin Joana João José Julia Kaito Karim "
    "Katarzyna Keira Kofi Kwame Lars Laura Leila Léa Liam Lina Linh Lucas Lucía Luka Magnus Mai Malik Marek "
    "Maria Mariam Mateo Matilda Mei Mehmet Mia Miguel Mila Minh Mohammed Nadia Naomi Nia Nikolai Nina Noah "
    "Noor Nora Olga Oliver Olivia Omar Oscar Paula Pedro Petra Priya Rafael Rahul Rania Ravi Rosa Ruth Sakura "
    "Samir Sanna Sara Sebastian Sofia Søren Sven Tariq Tomás Tove Valentina Vera Viktor Wei Yara Yusuf Zainab "
    "Zofia Zoë"
).split()
LAST = (
    "Abbas Achebe Adeyemi Ahmed Almeida Andersson Bakker Banerjee Bauer Becker Berg Bianchi Brown Çelik Chang "
    "Chen Cohen Costa Cruz Dahl Das Davies Dembélé Demir Díaz Dubois Eriksson Evans Fernández Ferrari Fischer "
    "Flores Fontaine García Ghosh González Green Gupta Haddad Hansen Hassan Hernández Hoang Horváth Hughes "
    "Ibrahim Ivanova Iyer Jackson Jansen Jensen Johansson Jones Kang Kaya Keller Khan Kim Kowalski Kruger "
    "Kumar Lambert Larsen Le Lee Lim Lindqvist Lopes López Maier Martin Martínez Mbeki Mendes Meyer Mishra "
    "Moreau Mori Müller Mwangi Nakamura Nguyen Nielsen Novák Nowak O'Brien Oduya Okafor Oliveira Osei Otieno "
    "Park Patel Pereira Petrov Popescu Ramos Rao Reyes Ricci Roberts Rossi Roux Ruiz Saito Salazar Sánchez "
    "Sato Schmidt Schneider Sharma Silva Singh Smith Sousa Suzuki Svensson Takahashi Tanaka Taylor Thomas "
    "Torres Traoré Tremblay Vargas Vasquez Virtanen Wagner Walker Wang Weber Williams Wilson Wójcik Yamamoto "
    "Yang Yıldız Young Zhang Zimmermann"
).split()


def believable_users(count: int) -> Iterator[list[dict[str, Any]]]:
    """Yield rows of the users table in batches; no two calls make the same addresses."""
    call = secrets.token_hex(3)
    for start in range(0, count, BATCH):
        yield [_row(call, number) for number in range(start, min(start + BATCH, count))]


def _row(call: str, number: int) -> dict[str, Any]:
    first, last = random.choice(FIRST), random.choice(LAST)
    name = f"{first} {last}"
    email = f"{_plain(first)}.{_plain(last)}.{call}{number}@example.com"
    created = now() - timedelta(seconds=random.randrange(3 * 365 * 86_400))
    return {
        "name": name,
        "name_key": normal.name_key(name),
        "email": email,
        "email_key": normal.email_key(email),
        "email_verified": random.random() < 0.8,
        "is_active": random.random() < 0.97,
        "created_at": created,
        "updated_at": created,
    }


def _plain(name: str) -> str:
    """Return a name as it stands in an address: ASCII letters only."""
    letters = unicodedata.normalize("NFKD", name.replace("ı", "i").replace("ø", "o").replace("ł", "l"))
    return "".join(letter for letter in letters.lower() if letter in string.ascii_lowercase)
